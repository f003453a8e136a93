"""`refract tune --pairs`: lines of a file, the loss, the folds, and a run on a tiny model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.cli.main import invoke
from pipeline.config.load import ConfigTree
from pipeline.config.model import TaskConfig
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.tuning.loop import StepFacts
from pipeline.tuning.loss import pair_loss
from pipeline.tuning.query_pairs import QueryPair, pair_groups, read_pairs
from pipeline.usecases.embed import embed
from pipeline.usecases.tune import tune
from pipeline.usecases.tune_request import TuneReport, TuneRequest
from tests.unit.tuning.scenes import FREE, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it

ASKED, OTHER = "find the place of the ticket", "find the urgency of the ticket"
TASKS = {
    "search": TaskConfig(model="m", mode="retrieval", instruction=ASKED),
    "other": TaskConfig(model="m", mode="retrieval", query_instruction=OTHER),
}
ONE = {"search": TASKS["search"]}
FAST = {"rank": 4, "texts": 12, "learning_rate": 1e-2, "warmup_steps": 2}
PLACES = {"printer": "the second floor", "server": "the server room", "invoice": "at some time"}


def line(**fields: Any) -> dict[str, Any]:
    return {"query": "q", "positive": "p"} | fields


def as_bytes(lines: Sequence[Any]) -> list[bytes]:
    return [json.dumps(fields).encode() for fields in lines]


def test_a_line_becomes_a_pair_of_its_task() -> None:
    lines = [
        line(instruction=ASKED, negatives=["n", "m"]),
        line(instruction=OTHER, positive=["a", "b"], negatives="p"),
    ]
    found = read_pairs("f", as_bytes(lines), TASKS)
    assert list(found.documents) == ["p", "n", "m", "a", "b"]
    assert found.pairs == [
        QueryPair("search", "q", "search:query", "search", (0,), (1, 2)),
        QueryPair("other", "q", "other:query", "other", (3, 4), (0,)),
    ]
    assert found.num_lines == 2


def test_an_instruction_of_no_task_is_taken_as_it_is() -> None:
    lines = [line(), line(instruction="where", query="x"), line(instruction="where", query="y")]
    found = read_pairs("f", as_bytes(lines), ONE)
    asking = [pair.query_prompt.removesuffix(":query") for pair in found.pairs]
    assert asking == ["search", "search, line 2", "search, line 2"]
    assert found.tasks["search, line 2"].query_instruction == "where"
    assert found.tasks["search, line 2"].instruction == ASKED
    assert [pair.document_prompt for pair in found.pairs] == ["search"] * 3


def test_lines_that_ask_the_same_are_one_pair() -> None:
    found = read_pairs("f", as_bytes([line(), line(positive="z", negatives=["n"]), line(negatives="n")]), ONE)
    assert found.pairs == [QueryPair("search", "q", "search:query", "search", (0, 1), (2,))]
    assert found.num_lines == 3
    again = read_pairs("f", as_bytes([line(), line(positive="z", negatives=["n"])]), ONE)
    assert again.sha256 == found.sha256
    assert read_pairs("f", as_bytes([line(negatives="n")]), ONE).sha256 != found.sha256


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(task="other"), "text"], r"f, line 2: expected a JSON object"),
        ([line(task="other"), line(negative="x")], r"line 2: unknown field 'negative'\. Did you mean 'negatives'"),
        ([line(query=" ")], "line 1: query is missing or blank"),
        ([{"query": "q"}], "line 1: positive is missing"),
        ([line(positive=[])], "line 1: positive is missing"),
        ([line(positive=[""])], "line 1: positive: expected a text or a list"),
        ([line(negatives={"a": 1})], "line 1: negatives: expected a text or a list"),
        ([line(instruction=7)], "line 1: instruction is missing or blank"),
        ([line(task="other", negatives=["p"])], "line 1: a text is positive and negative for one query"),
        ([line(task="search", negatives="n"), line(task="search", positive="n")], "line 2: a text is positive and neg"),
        ([line(task="searches")], r"line 1: no retrieval task 'searches'\. Did you mean 'search'"),
        ([line(instruction="where")], "line 1: fits no task by its instruction"),
        ([], "holds no pair"),
    ],
)
def test_a_bad_line_is_named(lines: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pairs("f", as_bytes(lines), TASKS)


def test_pairs_that_share_a_query_or_a_near_copy_stay_together() -> None:
    def pair(query: str, *positives: int) -> QueryPair:
        return QueryPair("t", query, "t:query", "t", positives, ())

    pairs = [pair("a", 0), pair("b", 1), pair("c", 2, 3), pair("a", 4), pair("d", 5)]
    copies = np.array([0, 1, 2, 1, 4, 5])  # documents 1 and 3 are near copies
    assert pair_groups(pairs, copies).tolist() == [0, 1, 1, 0, 4]


def test_another_positive_of_a_query_is_no_negative() -> None:
    rows = nn.functional.normalize(torch.randn(5, 8), dim=-1)
    queries, documents = rows[:2], rows[2:]
    own, wanted = torch.tensor([0, 2]), torch.tensor([[True, True, False], [False, False, True]])
    similar = queries @ documents.T / 0.1
    expected = [similar[0, [0, 2]].logsumexp(0) - similar[0, 0], similar[1].logsumexp(0) - similar[1, 2]]
    assert float(pair_loss(queries, documents, own, wanted, 0.1)) == pytest.approx(float(sum(expected) / 2), rel=1e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model")
    tiny_config(found)
    return found


def tree_of(base: Path, **model: Any) -> dict[str, Any]:
    templates = {"document_template": "{text}", "document_template_plain": "{text}"}
    return {
        "pipeline": "p",
        "source": {
            "bootstrap_servers": ["x:1"],
            "group_id": "g",
            "dead_letter_topic": "dead",
            "topics": {"tickets": {"key": "id", "text": "{body}", "tasks": ["search", "classes"]}},
        },
        "models": {
            "m": {"model": str(base), "overrides": FREE | templates, "device": "cpu", "dtype": "float32", **model}
        },
        "tasks": {
            "search": {"model": "m", "mode": "retrieval", "instruction": ASKED},
            "classes": {"model": "m", "instruction": OTHER},
        },
        "store": {"type": "edge", "path": "never-opened"},
    }


def pairs(count: int = 120) -> list[dict[str, Any]]:
    """Queries whose documents say the same thing in other words: what the plain model cannot know."""
    things = list(PLACES)
    return [
        {
            "query": f"{things[number % 3]} {number}",
            "positive": f"{PLACES[things[number % 3]]} {number}",
            "negatives": [f"{PLACES[things[(number + 1) % 3]]} {number}"],
        }
        for number in range(count)
    ]


def request_of(tmp_path: Path, content: list[Any] | None = None, **changes: Any) -> TuneRequest:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, pairs() if content is None else content)), encoding="utf-8")
    request = TuneRequest([], ["search"], tmp_path / "out", pairs=file, steps=6, settings=FAST)
    return replace(request, **changes)


def run(base: Path, request: TuneRequest, watch: Any = None, tree: Mapping[str, Any] | None = None) -> TuneReport:
    context = Context(ConfigTree(tree or tree_of(base), "c.yaml"))
    return tune(context, request, lambda *_: None, watch or (lambda _: None))


def test_pairs_train_an_adapter_that_finds_more(base: Path, tmp_path: Path) -> None:
    report = run(base, request_of(tmp_path, steps=80))
    assert report.method == "lora"
    assert report.use == [f"models.m.adapter: {tmp_path / 'out'}"]
    card = json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))
    before, after = (card[when]["ndcg_at_10"]["search"]["value"] for when in ("before", "after"))
    assert after > before + 0.1
    assert card["tasks"]["search"] == {"instruction": ASKED, "pairs": 120}
    assert card["data"]["documents"] == 240
    assert sum(card["data"][fold] for fold in ("train", "select", "report")) == 120
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"{card['after']['recall_at_1']['search']['value']:.2f}" in readme
    tuned = Context(ConfigTree(tree_of(base, adapter=str(tmp_path / "out")), "c.yaml"))
    plain = Context(ConfigTree(tree_of(base), "c.yaml"))
    rows = [embed(context, "search", ["printer 7"], as_queries=True) for context in (tuned, plain)]
    assert float((rows[0] * rows[1]).sum()) < 0.999


def test_a_killed_run_on_pairs_continues(base: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(facts: StepFacts) -> None:
        if facts.best_step:
            killed.append(facts.step)
            raise SystemExit

    with pytest.raises(SystemExit):
        run(base, request_of(tmp_path, steps=24), kill)
    steps: list[int] = []
    report = run(base, request_of(tmp_path, steps=24), lambda facts: steps.append(facts.step))
    assert steps[0] == killed[0] + 1
    whole = run(base, request_of(tmp_path, steps=24, output=tmp_path / "whole"))
    assert report.card["selection"] == whole.card["selection"]


def test_lines_of_one_query_and_silent_tasks_are_told(base: Path, tmp_path: Path) -> None:
    content = [{**row, "task": "search"} for row in [*pairs(60), {"query": "printer 0", "positive": "another room"}]]
    tree = tree_of(base)
    tree["tasks"]["silent"] = {"model": "m", "mode": "retrieval", "instruction": OTHER}
    notes = run(base, request_of(tmp_path, content, steps=2, tasks=["search", "silent"]), tree=tree).notes
    assert "61 lines are 60 pairs: those of one query were joined" in notes
    assert "no pair belongs to silent" in notes


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (None, {"inputs": ["x.jsonl"]}, "goes without INPUT"),
        (None, {"columns": {"search": "x"}}, "goes without --label"),
        (None, {"method": "head"}, "goes without --method head"),
        (None, {"control": True}, "goes without --control"),
        (None, {"tasks": ["classes"]}, r"tasks\.classes has mode: symmetric"),
        (None, {"pairs": Path("missing.jsonl")}, r"--pairs missing\.jsonl: cannot be read"),
        (None, {"pairs": None}, "name at least one INPUT, or --pairs"),
        (None, {"workers": 2}, "workers is 2"),
        (pairs(6), {}, "6 distinct pairs are too few"),
    ],
)
def test_what_does_not_go_with_pairs_is_told(
    base: Path, tmp_path: Path, content: list[Any] | None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(base, request_of(tmp_path, content, **changes))


def test_the_verb_prints_what_queries_find(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(tree_of(base)), encoding="utf-8")
    file = request_of(tmp_path).pairs
    common = ["tune", str(config), "--tasks", "search", "--pairs", str(file), "--rank", "4", "--steps", "2"]
    assert invoke([*common, "--output", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr()
    assert "nDCG at 10" in shown.out
    assert "models.m.adapter" in shown.err
