"""The LoRA loop on a tiny model: it learns, repeats, resumes, and what it writes is what is served."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.model import TaskConfig
from pipeline.engine.entry import check_tasks, load_engine, load_tokenizer
from pipeline.engine.prompts import build_prompts
from pipeline.engine.spec import resolve
from pipeline.errors import EnvironmentFault
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.folder import half_precision, write_adapter
from pipeline.tuning.general import general_texts
from pipeline.tuning.lessons import LabelLesson
from pipeline.tuning.loop import Length, LoraLoop, StepFacts
from pipeline.tuning.rehearsal import Rehearsal
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.split import split_texts
from pipeline.tuning.wordings import Wordings
from tests.unit.tuning.scenes import INSTRUCTIONS, crossed_texts, prompts_of, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it

TEXTS, LABELS = crossed_texts(160)
SETTINGS = LoraSettings(rank=4, texts=16, learning_rate=1e-2, warmup_steps=2, plain_share=0.2)
SPLIT = split_texts(list(LABELS.values()), np.arange(len(TEXTS)), seed=0)
WORDINGS = Wordings(INSTRUCTIONS, {})
LESSON = LabelLesson(TEXTS, LABELS, SPLIT.train, SPLIT.select, WORDINGS, has_plain=True, settings=SETTINGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_config(folder)
    return folder


def encoder_of(base: Path) -> LoraEncoder:
    spec = resolve(tiny_config(base))
    return LoraEncoder(spec, prompts_of(WORDINGS), torch.device("cpu"), SETTINGS)


def ignore(_: StepFacts) -> None:
    """Watches nothing."""


def weights_of(encoder: LoraEncoder) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in encoder.weights.items()}


def test_training_separates_what_the_instructions_ask_for(base: Path, tmp_path: Path) -> None:
    encoder = encoder_of(base)
    seen: list[StepFacts] = []
    outcome = LoraLoop(encoder, LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=60), seen.append)
    assert outcome.stopped is None
    assert outcome.state.best_score is not None
    assert outcome.state.best_score > outcome.plain_score + 0.1
    assert [facts.step for facts in seen] == list(range(1, 61))
    assert seen[-1].remaining_s == 0


def test_general_texts_are_held_where_they_were(base: Path, tmp_path: Path) -> None:
    moved = []
    for rehearsal in (0, 32):
        encoder = encoder_of(base)
        measured = Rehearsal(encoder, general_texts(), 200)
        settings = replace(SETTINGS, rehearsal=rehearsal, plain_share=0.0)
        LoraLoop(encoder, LESSON, settings, tmp_path / f"c{rehearsal}", run="r").run(Length(steps=20), ignore)
        with torch.no_grad():
            moved.append(float(measured.loss(np.random.default_rng(0), 0.1)))
    assert moved[1] < moved[0] * 0.9  # 0.66 of it, measured


def test_updates_scaled_to_nothing_are_the_untrained_model(base: Path, tmp_path: Path) -> None:
    encoder = encoder_of(base)
    before = encoder.embed(TEXTS[:8], ["urgency"])["urgency"]
    LoraLoop(encoder, LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=20), ignore)
    trained = encoder.embed(TEXTS[:8], ["urgency"])["urgency"]
    encoder.scale(0.5)
    halved = encoder.embed(TEXTS[:8], ["urgency"])["urgency"]
    encoder.scale(0)
    assert np.allclose(encoder.embed(TEXTS[:8], ["urgency"])["urgency"], before, atol=1e-3)
    assert (trained * before).sum(axis=1).mean() < (halved * before).sum(axis=1).mean() < 0.9999


def test_untrained_vectors_are_the_models_own(base: Path) -> None:
    encoder = encoder_of(base)
    config = tiny_config(base)
    tasks = {name: task for name, task in prompts_of(WORDINGS).items() if name in INSTRUCTIONS}
    (served, _) = load_engine(config, tasks).embed(load_tokenizer(config, tasks).encode(TEXTS, list(tasks)))
    found = encoder.embed(TEXTS, ["urgency"])["urgency"]
    assert (found * served).sum(axis=1).min() >= 0.999


def test_prompts_that_ask_the_same_have_rows_each(base: Path) -> None:
    tasks = {name: TaskConfig(model="m", instruction=name[:3]) for name in ("one", "two", "one again")}
    encoder = LoraEncoder(resolve(tiny_config(base)), tasks, torch.device("cpu"), SETTINGS)
    one, two, again = encoder.rows(TEXTS[:5], list(tasks))
    assert one.shape == two.shape == (5, 32)
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


def test_texts_with_prompts_of_their_own_have_the_rows_they_have_together(base: Path) -> None:
    encoder = encoder_of(base)
    names = list(prompts_of(WORDINGS))
    own = [[names[number % len(names)], names[(3 * number + 1) % len(names)]] for number in range(12)]
    with encoder.untrained():
        together = encoder.embed(TEXTS[:12], names)
        found = [rows.numpy() for rows in encoder.rows_each(TEXTS[:12], own)]
    for place, rows in enumerate(found):
        expected = np.stack([together[prompts[place]][number] for number, prompts in enumerate(own)])
        np.testing.assert_allclose(rows, expected, atol=1e-2)  # sums of other batches, in bfloat16 where a CPU has it


def test_texts_of_one_batch_are_asked_in_different_wordings(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(base)
    asked: list[tuple[str, ...]] = []

    def spied(texts: Sequence[str], prompts: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        asked.extend(zip(*prompts, strict=True))
        return LoraEncoder.rows_each(encoder, texts, prompts)

    monkeypatch.setattr(encoder, "rows_each", spied)
    plain_never = replace(LESSON, settings=replace(SETTINGS, plain_share=0.0))
    plain_never.loss(encoder, 0, np.random.default_rng(0))
    assert [len(of_task) for of_task in asked] == [SETTINGS.texts] * len(LABELS)
    assert all(len(set(of_task)) > 3 for of_task in asked)


def test_equal_steps_and_seed_give_equal_weights(base: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        encoder = encoder_of(base)
        LoraLoop(encoder, LESSON, SETTINGS, tmp_path / name, run="r").run(Length(steps=6), ignore)
        found.append(weights_of(encoder))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_killed_run_continues_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    whole = encoder_of(base)
    LoraLoop(whole, LESSON, SETTINGS, tmp_path / "whole", run="r").run(Length(steps=16), ignore)

    def kill(facts: StepFacts) -> None:
        if facts.step == 9:
            raise SystemExit

    with pytest.raises(SystemExit):
        LoraLoop(encoder_of(base), LESSON, SETTINGS, tmp_path / "cut", run="r").run(Length(steps=16), kill)
    rest: list[StepFacts] = []
    resumed = encoder_of(base)
    LoraLoop(resumed, LESSON, SETTINGS, tmp_path / "cut", run="r").run(Length(steps=16), rest.append)
    assert 1 < rest[0].step <= 10
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())


def test_a_checkpoint_of_another_run_is_not_continued(base: Path, tmp_path: Path) -> None:
    LoraLoop(encoder_of(base), LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=3), ignore)
    assert LoraLoop(encoder_of(base), LESSON, SETTINGS, tmp_path / "c", run="other").state.step == 0


def test_an_interrupt_keeps_the_best_so_far(base: Path, tmp_path: Path) -> None:
    def interrupt(facts: StepFacts) -> None:
        if facts.best_step and facts.step > facts.best_step:
            raise KeyboardInterrupt

    encoder = encoder_of(base)
    outcome = LoraLoop(encoder, LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=60), interrupt)
    assert outcome.stopped is not None
    assert outcome.stopped.startswith("interrupted")
    assert 0 < outcome.state.best_step < outcome.state.step


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(base: Path, tmp_path: Path) -> None:
    def break_weights(facts: StepFacts) -> None:
        if facts.best_step:
            next(iter(encoder.weights.values())).data.fill_(float("nan"))

    encoder = encoder_of(base)
    outcome = LoraLoop(encoder, LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=60), break_weights)
    assert outcome.stopped is not None
    assert "not a number" in outcome.stopped
    assert all(torch.isfinite(value).all() for value in encoder.weights.values())


def test_a_loss_that_is_no_number_from_the_start_is_an_error(base: Path, tmp_path: Path) -> None:
    encoder = encoder_of(base)
    loop = LoraLoop(encoder, LESSON, replace(SETTINGS, learning_rate=1e30), tmp_path / "c", run="r")
    with pytest.raises(EnvironmentFault, match="not a number"):
        loop.run(Length(steps=5), ignore)


def test_minutes_become_steps_after_five(base: Path, tmp_path: Path) -> None:
    seen: list[StepFacts] = []
    outcome = LoraLoop(encoder_of(base), LESSON, SETTINGS, tmp_path / "c", run="r").run(
        Length(minutes=0.001), seen.append
    )
    assert [facts.steps for facts in seen[:4]] == [None] * 4
    assert outcome.state.steps == len(seen) >= 5


@pytest.mark.parametrize("family", ["t5-instructor", "qwen3"])
def test_the_engine_and_sentence_transformers_serve_what_was_trained(family: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - slow to import

    config = tiny_config(tmp_path / "base", family)
    spec = resolve(config)
    encoder = LoraEncoder(spec, prompts_of(WORDINGS), torch.device("cpu"), SETTINGS)
    LoraLoop(encoder, LESSON, SETTINGS, tmp_path / "c", run="r").run(Length(steps=8), ignore)
    half_precision(encoder)
    tasks = {name: task for name, task in prompts_of(WORDINGS).items() if name in INSTRUCTIONS}
    (tmp_path / "out").mkdir()
    write_adapter(tmp_path / "out", encoder, build_prompts(spec, tasks), base=str(spec.files.folder), revision=None)
    tuned = config.model_copy(update={"adapter": str(tmp_path / "out")})
    check_tasks("m", tuned, tasks)
    served = load_engine(tuned, tasks).embed(load_tokenizer(tuned, tasks).encode(TEXTS[:24], list(tasks)))
    (before, _) = load_engine(config, tasks).embed(load_tokenizer(config, tasks).encode(TEXTS[:24], list(tasks)))
    assert (served[0] * before).sum(axis=1).min() < 0.999  # the adapter is there: precision alone stays above 0.99999
    trained = encoder.embed(TEXTS[:24], list(tasks))
    reference = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    for rows, task in zip(served, tasks, strict=True):
        theirs = reference.encode(TEXTS[:24], prompt_name=task, normalize_embeddings=True)
        assert (rows * theirs).sum(axis=1).min() >= 0.99999
        assert (rows * trained[task]).sum(axis=1).min() >= 0.999
