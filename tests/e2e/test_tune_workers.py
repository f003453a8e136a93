"""`refract tune --workers 2`: two processes train one adapter, and a run that was stopped goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.train_run import RayTrainer
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.tuning.folder import unfinished_folder
from pipeline.tuning.loop import StepFacts
from pipeline.usecases.tune import tune
from tests.unit.tuning.scenes import tiny_config
from tests.unit.tuning.test_tune import request_of, tree_of

pytest.importorskip("pandas", reason="Ray Train needs the workers extra: make slow")
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.e2e, pytest.mark.timeout(900)]
pytestmark += [pytest.mark.filterwarnings("ignore")]  # of pandas and of Ray Train, which are not ours


def quiet(*_: Any) -> None:
    """Shows nothing."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    tiny_config(tmp_path / "base")
    return Context(ConfigTree(tree_of(tmp_path / "base"), "c.yaml"))


def test_an_interrupt_keeps_the_best_that_two_workers_have(context: Context, tmp_path: Path) -> None:
    def interrupt(facts: StepFacts) -> None:
        if facts.best_step:
            raise KeyboardInterrupt

    report = tune(context, request_of(tmp_path, steps=60, workers=2), quiet, interrupt, RayTrainer(2, None))
    assert any(note.startswith("interrupted; kept the state after step") for note in report.notes)
    assert 0 < report.card["steps"]["kept"] <= 60
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_a_killed_run_of_two_workers_continues_to_its_end(context: Context, tmp_path: Path) -> None:
    request = request_of(tmp_path, steps=60, workers=2)

    def kill(facts: StepFacts) -> None:
        if facts.best_step:
            raise SystemExit

    with pytest.raises(SystemExit):
        tune(context, request, quiet, kill, RayTrainer(2, None))
    assert unfinished_folder(request.output).is_dir()
    steps: list[int] = []
    report = tune(context, request, quiet, lambda facts: steps.append(facts.step), RayTrainer(2, None))
    assert steps == list(range(steps[0], 61))
    assert steps[0] > 1
    assert report.card["steps"]["done"] == 60
    assert report.card["settings"]["workers"] == 2
    assert report.card["after"]["flip_rate"]["value"] > report.card["before"]["flip_rate"]["value"] + 0.2
    assert not unfinished_folder(request.output).exists()
    assert json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))["method"] == "lora"
