"""A text is tokenised once, its instruction is never cut, and what is cut is counted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.spec import resolve
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.errors import ConfigError
from tests.unit.engine.tiny_models import FAMILIES, INSTRUCTION, MAX_LENGTH, build


def tokenizer_of(family: str, folder: Path, tasks: dict[str, TaskConfig]) -> PromptTokenizer:
    overrides = dict(FAMILIES[family].overrides)
    return PromptTokenizer(resolve(ModelConfig(model=str(build(family, folder)), overrides=overrides)), tasks)


def two_tasks() -> dict[str, TaskConfig]:
    return {
        "urgency": TaskConfig(instruction=INSTRUCTION, model="m"),
        "topic": TaskConfig(instruction="Find the topic", model="m"),
    }


def test_tasks_share_one_run_of_ids_per_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3", tmp_path, two_tasks())
    batch = tokenizer.encode(["server down", "printer"], ["urgency", "topic"])
    np.testing.assert_array_equal(batch.segments, [[0, 1], [0, 1]])
    assert len(batch.offsets) == 3
    assert batch.whole == (False, False)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "t5-instructor", "xlm-roberta-e5", "gritlm"])
def test_assembled_prompts_are_whole_prompts(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family, tmp_path, {"urgency": TaskConfig(instruction=INSTRUCTION, model="m")})
    prompt, ids = tokenizer.show("urgency", "server room")
    raw = tokenizer._raw
    assert ids == [*raw.first, *raw.ids(prompt), *raw.last]
    assert INSTRUCTION in prompt


def test_truncation_cuts_the_text_and_keeps_instruction_and_end_token(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3", tmp_path, two_tasks())
    text = "invoice wrong " * 50
    _, ids = tokenizer.show("urgency", text)
    _, short = tokenizer.show("urgency", "invoice")
    assert len(ids) == MAX_LENGTH
    assert ids[-1] == short[-1] == tokenizer.end_tokens[0]
    head = len(tokenizer.prompts["urgency"].prefix)
    assert ids[:head] == short[:head]
    batch = tokenizer.encode([text, "x"], ["urgency", "topic"])
    whole = len(tokenizer._raw.ids(":" + text))
    rooms = [tokenizer.prompts[name].room for name in ("urgency", "topic")]
    assert batch.truncated.tolist() == [[whole - room, 0] for room in rooms]
    assert batch.offsets[1] == max(rooms), "only what some prompt can use is carried"


def test_a_suffix_survives_truncation(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama-inbedder", tmp_path, {"urgency": TaskConfig(instruction=INSTRUCTION, model="m")})
    suffix = tokenizer.prompts["urgency"].suffix.tolist()
    assert tokenizer.show("urgency", "word " * 500)[1][-len(suffix) :] == suffix


def test_where_no_cut_is_proven_prompts_are_tokenised_whole_and_cut_in_the_text(tmp_path: Path) -> None:
    folder = build("qwen3", tmp_path)
    head, tail = "x" * 40, "y" * 30
    overrides = {"like": "Qwen/Qwen3-Embedding-0.6B", "query_template": f"{{instruction}}{head}{{text}}{tail}"}
    spec = resolve(ModelConfig(model=str(folder), overrides=overrides, max_length=120))
    tokenizer = PromptTokenizer(spec, {"t": TaskConfig(instruction="a", model="m")})
    assert tokenizer.whole_prompts == ["t"]
    raw = tokenizer._raw
    batch = tokenizer.encode(["server down", "invoice " * 100], ["t"])
    assert batch.whole == (True,)
    first = batch.ids[: batch.offsets[1]].tolist()
    assert first == [*raw.ids(f"a{head}server down{tail}"), *raw.last]
    second = batch.ids[batch.offsets[1] :].tolist()
    assert len(second) == 120
    tail_ids = raw.ids(tail)
    assert second[-len(tail_ids) - 1 :] == [*tail_ids, *raw.last]
    assert batch.truncated[0, 0] == 0
    assert batch.truncated[0, 1] == len(raw.ids(f"a{head}{'invoice ' * 100}{tail}")) - (120 - len(raw.last))


def test_an_instruction_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.long.*an instruction is never cut"):
        tokenizer_of("qwen3", tmp_path, {"long": TaskConfig(instruction="judge " * 60, model="m")})


def test_an_instruction_may_hold_placeholders(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3", tmp_path, {"t": TaskConfig(instruction="{text} {instruction}", model="m")})
    assert tokenizer.show("t", "body {text}")[0] == "Instruct: {text} {instruction}\nQuery:body {text}"


def test_an_unknown_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'urgency'"):
        tokenizer_of("qwen3", tmp_path, two_tasks()).encode(["x"], ["urgencies"])


def test_tokenising_never_imports_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.model import ModelConfig, TaskConfig\n"
        "from pipeline.engine.entry import check_tasks, identify, load_tokenizer\n"
        "model, tasks = ModelConfig(model='packaged:all-MiniLM-L6-v2'), {'t': TaskConfig(model='m')}\n"
        "check_tasks('m', model, tasks); identify(model); load_tokenizer(model, tasks).encode(['x'], ['t'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'too heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])  # noqa: S603 - our own code


def test_a_folder_with_a_vocabulary_only_gets_berts_tokenizer(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)
    spec = resolve(ModelConfig(model=str(folder), overrides={"instruction_style": "none"}))
    task = {"t": TaskConfig(model="m")}
    expected = PromptTokenizer(spec, task).show("t", "Server ROOM on fire!")
    vocabulary = PromptTokenizer(spec, task)._raw.tokenizer.get_vocab()
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    assert PromptTokenizer(spec, task).show("t", "Server ROOM on fire!") == expected


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    (build("bert-bge", tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        tokenizer_of_folder(tmp_path)


def tokenizer_of_folder(folder: Path) -> PromptTokenizer:
    spec = resolve(ModelConfig(model=str(folder), overrides={"instruction_style": "none"}))
    return PromptTokenizer(spec, {"t": TaskConfig(model="m")})
