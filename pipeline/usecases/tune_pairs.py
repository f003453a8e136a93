"""Trains retrieval tasks on pairs of queries and documents: one adapter for all of their instructions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.model import TaskConfig
from pipeline.context import Context
from pipeline.engine.prompts import build_prompts
from pipeline.errors import ConfigError
from pipeline.tuning.folder import appearing, write_adapter, write_card
from pipeline.tuning.pair_card import make_pair_card
from pipeline.tuning.pair_tuner import PairTuner, TunedPairs
from pipeline.tuning.query_pairs import PairTexts, read_pairs
from pipeline.usecases.tune_request import (
    Training,
    TuneReport,
    TuneRequest,
    base_of,
    check_general,
    checkpoint_of,
    drop_unfinished,
    length_of,
    model_of,
    run_notes,
    settings_of,
    tasks_of,
    use_adapter,
)


def tune_pairs(context: Context, request: TuneRequest, how: Training) -> TuneReport:
    """Trains, measures, and writes the folder. Raises like `tune`."""
    path = _checked(request)
    tasks, model = tasks_of(context, request), model_of(context, request)
    data = _read(path, tasks)
    how.progress(f"embedding {len(data.documents):,} documents", 0, 0)
    tuner = PairTuner(model, tasks, data, settings_of(request))
    how.progress("training", 0, 0)
    tuned = tuner.lora(
        length_of(request), checkpoint_of(request), how.watch, how.train, keep_general=not request.allow_drop
    )
    check_general(tuned.general, allow_drop=request.allow_drop)
    card = _write(tuner, tuned, request)
    drop_unfinished(request)
    use = use_adapter(request, tasks, model)
    return TuneReport("lora", str(request.output), "pairs train an adapter", card, _notes(tuner, tuned), use)


def _checked(request: TuneRequest) -> Path:
    """Returns the file of pairs. Raises ConfigError for what goes with labels only."""
    assert request.pairs is not None  # noqa: S101 - of a run on pairs
    for option, given in (
        ("INPUT", request.inputs),
        ("--label", request.columns),
        ("--topic", request.topic),
        ("--wordings", request.wordings),
        ("--control", request.control),
        ("--method head", request.method == "head"),
    ):
        if given:
            raise ConfigError(f"--pairs trains an adapter on queries and documents, so it goes without {option}")
    return request.pairs


def _read(path: Path, tasks: Mapping[str, TaskConfig]) -> PairTexts:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"--pairs {path}: cannot be read ({error.strerror})") from None
    return read_pairs(f"--pairs {path}", lines, tasks)


def _write(tuner: PairTuner, tuned: TunedPairs, request: TuneRequest) -> Mapping[str, Any]:
    base = base_of(request, tuner.spec)
    card = make_pair_card(tuner, tuned, base)
    with appearing(request.output) as folder:
        prompts = build_prompts(tuner.spec, tuner.tasks)
        write_adapter(folder, tuner.encoder, prompts, base=base.name, revision=base.revision)
        write_card(folder, card)
    return card.facts


def _notes(tuner: PairTuner, tuned: TunedPairs) -> list[str]:
    data, split = tuner.data, tuner.split
    notes = []
    if len(data.pairs) < data.num_lines:
        notes.append(f"{data.num_lines:,} lines are {len(data.pairs):,} pairs: those of one query were joined")
    if split.num_moved:
        notes.append(f"{split.num_moved:,} pairs went to the fold of their near copies")
    silent = [name for name in tuner.tasks if not any(pair.task == name for pair in data.pairs)]
    if silent:
        notes.append(f"no pair belongs to {', '.join(silent)}")
    return notes + run_notes(tuned.outcome, tuned.general)
