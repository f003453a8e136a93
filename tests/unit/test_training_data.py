"""The demo's training tickets: balanced, not repetitive, and apart from the tickets that the figures are taken on."""

import json
import re
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from pipeline.tuning.wordings import FRAMES
from tests.demo_tickets import DEMO, held_out_rows, rows_of, text_of

LABELS = {
    "urgency": ("low", "medium", "high", "critical"),
    "tone": ("calm", "worried", "annoyed", "angry"),
    "wish": ("fix", "information", "access", "refund"),
}


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[begin : begin + size]) for begin in range(len(words) - size + 1)}


TRAINING = [row for part in sorted((DEMO / "training").glob("*.jsonl")) for row in rows_of(f"training/{part.name}")]
HELD_OUT = held_out_rows()


def test_there_are_enough_tickets_each_labelled_by_the_guide() -> None:
    assert len(TRAINING) >= 1_500
    assert len(HELD_OUT) == 715
    for row in [*TRAINING, *HELD_OUT]:
        assert all(row[label] in values for label, values in LABELS.items())
    assert len({row["issue"] for row in TRAINING}) == len({row["issue"] for row in HELD_OUT}) == 12
    assert len({row["id"] for row in [*TRAINING, *HELD_OUT]}) == len(TRAINING) + len(HELD_OUT)


@pytest.mark.parametrize(("first", "second"), list(combinations(LABELS, 2)))
def test_every_combination_of_labels_is_there_often_enough(first: str, second: str) -> None:
    for rows, least in ((TRAINING, 15), (HELD_OUT, 8)):
        counts = Counter((row[first], row[second]) for row in rows)
        thin = {cell: counts[cell] for cell in product(LABELS[first], LABELS[second]) if counts[cell] < least}
        assert thin == {}


def test_the_card_tells_how_well_two_labellings_agree() -> None:
    newest = {row["id"]: row for row in rows_of("tickets.jsonl") if "_raw" not in row}
    again = rows_of("labels_second.jsonl")
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    assert len(again) == 150
    for label in ("tone", "wish"):
        first, second = ([rows[row["id"]][label] for row in again] for rows in (newest, {r["id"]: r for r in again}))
        agreed = np.mean([one == two for one, two in zip(first, second, strict=True)])
        chance = sum(first.count(value) * second.count(value) for value in LABELS[label]) / len(again) ** 2
        kappa = (agreed - chance) / (1 - chance)
        assert re.search(rf"{agreed:.1%} (of the 150 )?in {label} \(κ {kappa:.2f}\)", card)


def test_no_training_ticket_shares_eight_words_in_a_row_with_a_held_out_one() -> None:
    held_out = set().union(*(grams(text_of(row), 8) for row in HELD_OUT))
    assert [row["id"] for row in TRAINING if grams(text_of(row), 8) & held_out] == []


def test_no_phrase_runs_through_the_training_tickets() -> None:
    counts = Counter(gram for row in TRAINING for gram in grams(text_of(row), 5))
    assert {gram: count for gram, count in counts.items() if count > len(TRAINING) / 100} == {}


def test_held_out_wordings_are_in_no_training_data() -> None:
    held_out, trained = (json.loads((DEMO / name).read_text("utf-8")) for name in ("paraphrases.json", "wordings.json"))
    assert held_out.keys() == trained.keys()
    known = {" ".join(words_of(text)) for texts in trained.values() for text in texts}
    asked = {" ".join(words_of(text)) for texts in held_out.values() for text in texts}
    assert len(asked) == sum(map(len, held_out.values()))
    assert not asked & known
    assert not any(wording in " ".join(words_of(text_of(row))) for row in TRAINING for wording in asked)
    assert all("{instruction}" in frame for frame in FRAMES)


@pytest.mark.slow
def test_no_training_ticket_is_near_a_held_out_one() -> None:
    from pipeline.config.model import ModelConfig, TaskConfig  # noqa: PLC0415 - torch
    from pipeline.engine.entry import load_engine, load_tokenizer  # noqa: PLC0415 - as above

    model = ModelConfig(
        model="packaged:all-MiniLM-L6-v2", overrides={"instruction_style": "none"}, device="cpu", dtype="float32"
    )
    tasks = {"plain": TaskConfig(model="m")}
    engine, tokenizer = load_engine(model, tasks), load_tokenizer(model, tasks)
    training, held_out = (
        np.concatenate(
            [
                engine.embed(tokenizer.encode([text_of(row) for row in rows[begin : begin + 256]], ["plain"]))[0]
                for begin in range(0, len(rows), 256)
            ]
        )
        for rows in (TRAINING, HELD_OUT)
    )
    near = np.argwhere(training @ held_out.T > 0.90)
    assert [(TRAINING[row]["id"], HELD_OUT[column]["id"]) for row, column in near] == []
