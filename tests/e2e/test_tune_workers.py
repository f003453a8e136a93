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
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]


def quiet(*_: Any) -> None:
    """Shows nothing."""


@pytest.mark.timeout(600)
def test_two_workers_train_one_adapter_and_continue_after_an_interrupt(tmp_path: Path) -> None:
    tiny_config(tmp_path / "base")
    context = Context(ConfigTree(tree_of(tmp_path / "base"), "c.yaml"))
    request = request_of(tmp_path, steps=60, workers=2)

    def stop(facts: StepFacts) -> None:
        if facts.best_step:
            raise KeyboardInterrupt

    early = tune(
        context, request_of(tmp_path, steps=60, workers=2, output=tmp_path / "early"), quiet, stop, RayTrainer(2, None)
    )
    assert any(note.startswith("interrupted; kept the state after step") for note in early.notes)
    assert 0 < early.card["steps"]["kept"] <= 60
    assert (tmp_path / "early" / "adapter_model.safetensors").is_file()

    def kill(facts: StepFacts) -> None:
        if facts.best_step:
            raise SystemExit

    with pytest.raises(SystemExit):
        tune(context, request, quiet, kill, RayTrainer(2, None))
    assert unfinished_folder(request.output).is_dir()
    steps: list[int] = []
    report = tune(context, request, quiet, lambda facts: steps.append(facts.step), RayTrainer(2, None))
    assert steps[0] > 1
    assert steps == list(range(steps[0], 61))
    assert report.card["steps"]["done"] == 60
    assert report.card["settings"]["workers"] == 2
    assert report.card["after"]["flip_rate"]["value"] > report.card["before"]["flip_rate"]["value"] + 0.2
    assert not unfinished_folder(request.output).exists()
    assert json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))["method"] == "lora"
