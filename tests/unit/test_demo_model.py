"""The demo's adapter is what its card says: these weights, trained on these tickets, for these instructions."""

import hashlib
import json
from pathlib import Path

from pipeline.context import Context
from pipeline.usecases.tune import _read
from pipeline.usecases.tune_request import TuneRequest, tasks_of
from tests.config_trees import ROOT
from tests.demo_tickets import DEMO

ADAPTER = DEMO / "adapter"
CARD = json.loads((ADAPTER / "card.json").read_text(encoding="utf-8"))
TASKS = ["urgency", "issue", "tone", "wish"]


def quiet(_doing: str, _done: int, _total: int) -> None:
    """Shows nothing."""


def test_the_weights_are_those_of_the_card_and_small_enough_for_a_package() -> None:
    found = {
        file.relative_to(ADAPTER).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in ADAPTER.rglob("*.safetensors")
    }
    assert found == CARD["sha256"]
    assert sum(file.stat().st_size for file in ADAPTER.rglob("*")) <= 4_000_000
    assert f"Made by `refract tune` {CARD['refract']}" in (ADAPTER / "README.md").read_text(encoding="utf-8")


def test_the_card_is_of_the_training_tickets_and_wordings_that_are_here() -> None:
    context = Context.open(DEMO / "model.yaml")
    request = TuneRequest([str(DEMO / "training")], TASKS, Path("never-written"), method="lora")
    data = _read(context, request, tasks_of(context, request), quiet)
    assert data.sha256 == CARD["data"]["sha256"]
    wordings = json.loads((DEMO / "wordings.json").read_text(encoding="utf-8"))
    for task in TASKS:
        assert set(wordings[task]) <= set(CARD["tasks"][task]["wordings"])


def test_the_demo_asks_what_the_adapter_was_trained_to_read() -> None:
    trained, shown = (Context.open(path).config for path in (DEMO / "model.yaml", ROOT / "configs" / "demo.yaml"))
    assert shown.models["minilm"].adapter == "packaged:demo"
    assert shown.models["minilm"].overrides == trained.models["minilm"].overrides
    for task in TASKS:
        assert shown.tasks[task].instruction == trained.tasks[task].instruction == CARD["tasks"][task]["instruction"]
