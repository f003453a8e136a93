"""What the demo's trained model does on tickets that it was not trained on, and what training takes.

separation, flip_rate   of the configuration's tasks, on the live tickets of the demo's stream
separation_low          lower end of the 95 % interval
tasks                   accuracy of each task's own label: `own` under its instruction, `plain` of the untrained
                        model without one, `tfidf` of words alone; `others`: of the other labels, under it
shuffled                κ of each task's own label behind heads that learned shuffled labels: 0 is chance
paraphrase_spread       of the task that depends most on the wording: accuracy under the best less the worst
head_train_s            `refract tune --method head` of all tasks, from the end of the embedding to the folder
lora_train_s            as the adapter's card says; measured here with --train
cost_of_4_tasks         four headed tasks over one, by turns on the same texts
unseen_wordings         accuracy of each task under wordings that no training saw
unseen_aspect           with --unseen: tone, asked of a model that was trained on the other tasks alone
evidence                intervals, the untrained model, and what the figures rest on
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.config.load import ConfigTree, parse_config, read_tree
from pipeline.engine.files import find_adapter
from pipeline.engine.measure import Workload
from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation, PromptKind
from pipeline.session import Session
from pipeline.tuning.loop import StepFacts
from pipeline.tuning.settings import LoraSettings
from pipeline.usecases.evaluate import EvaluateRequest
from pipeline.usecases.tune_request import TuneRequest
from tests.benchmarks._harness import ROOT, median, report, told
from tests.benchmarks.heads import CHUNK, by_turns, loaded
from tests.demo_tickets import DEMO, held_out_rows, text_of

TRAINED = DEMO / "model.yaml"
"""What `make model` trains."""

UNSEEN = "tone"
QUICK_TEXTS = 240
QUICK_STEPS = 2
NOT_REPEATED = frozenset({"seed", "workers"})
"""Settings of an adapter's card that are given in another way, or decide nothing."""


def main() -> None:
    """Measures all of them."""
    given = _arguments()
    tree = read_tree(given.config)
    max_texts = QUICK_TEXTS if given.quick else 10_000
    card = adapter_card(tree)
    if card is None and (given.train or given.unseen):
        raise SystemExit(
            "--train and --unseen repeat the training of an adapter; the configuration has none with a card"
        )
    with TemporaryDirectory(prefix="refract-quality-") as name:
        folder = Path(name)
        held_out = _write(folder / "held_out.jsonl", held_out_rows())
        request = EvaluateRequest([held_out], max_texts=max_texts, paraphrases=DEMO / "paraphrases.json")
        trained = _evaluated(tree, request)
        plain = _evaluated(untrained(tree), EvaluateRequest([held_out], max_texts=max_texts))
        figures = told("evaluation", 0, figures_of(trained, plain)) | _heads(folder, max_texts)
        figures["lora_train_s"] = None if card is None else card["training_s"]
        if given.train:
            figures["lora_train_s"] = _lora(folder / "lora", repeated(card or {}, quick=given.quick))["training_s"]
        figures["cost_of_4_tasks"] = _cost(folder, [text_of(row) for row in held_out_rows()], quick=given.quick)
        if given.unseen:
            _lora(folder / "unseen", repeated(card or {}, quick=given.quick, without=UNSEEN))
            without = with_adapter(untrained(tree), UNSEEN, folder / "unseen")
            asked = EvaluateRequest([held_out], max_texts=max_texts, controls=False)
            figures["unseen_aspect"] = aspect_figures(UNSEEN, _evaluated(without, asked))
    settings = {
        "config": str(given.config),
        "quick": given.quick,
        "threads": torch.get_num_threads(),
        "lora_train_s": "measured" if given.train else "of the adapter's card",
    }
    report(figures, settings, given.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write one JSON object here")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml", help="the trained model")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TEXTS} texts: to see whether it works")
    parser.add_argument("--train", action="store_true", help="train the adapter again: about half an hour")
    parser.add_argument("--unseen", action="store_true", help=f"also train one without {UNSEEN}: as long")
    return parser.parse_args()


# What is measured on


def untrained(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without what was trained: no adapter, no heads."""
    return {
        **tree,
        "models": {name: _without(model, "adapter", "adapter_revision") for name, model in tree["models"].items()},
        "tasks": {name: _without(task, "head") for name, task in tree["tasks"].items()},
    }


def with_adapter(tree: Mapping[str, Any], task: str, folder: Path) -> dict[str, Any]:
    """Returns a configuration with an adapter on a task's model."""
    model = tree["tasks"][task]["model"]
    return {**tree, "models": {**tree["models"], model: {**tree["models"][model], "adapter": str(folder)}}}


def repeated(card: Mapping[str, Any], *, quick: bool, without: str | None = None) -> dict[str, Any]:
    """Returns how to train as an adapter's card says it was, on all of its tasks but one."""
    return {
        "tasks": [task for task in card["tasks"] if task != without],
        "steps": QUICK_STEPS if quick else card["steps"]["planned"],
        "seed": card["seed"],
        "settings": {
            setting.name: card["settings"][setting.name]
            for setting in fields(LoraSettings)
            if setting.name in card["settings"] and setting.name not in NOT_REPEATED
        },
        "max_texts": QUICK_TEXTS if quick else 100_000,
    }


def adapter_card(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what the configured adapter's folder says about itself, None without adapter or card."""
    config = parse_config(tree, environ=os.environ, origin="configuration")
    found = [find_adapter(model, weights=False) for model in config.models.values()]
    cards = [files.read_json("card.json") for files in found if files is not None]
    return next((card for card in cards if card is not None), None)


# What is found


def figures_of(trained: Evaluation, plain: Evaluation) -> dict[str, Any]:
    """Returns the figures that two evaluations of the same tasks and texts hold."""
    without = next(row for row in plain.matrix if row.kind is PromptKind.NO_INSTRUCTION)
    plain_of = {score.label: score.accuracy for score in without.scores}
    under = {row.name: {score.label: score for score in row.scores} for row in trained.matrix}
    reworded = {task.name: task.paraphrases for task in trained.tasks if task.paraphrases is not None}
    return {
        "separation": _value(trained.separation),
        "separation_low": None if trained.separation is None else trained.separation.low,
        "flip_rate": _value(trained.flip_rate),
        "tasks": {
            task.name: {
                "own": task.own.accuracy.value,
                "plain": plain_of[task.own.label].value,
                "tfidf": None if task.words is None else task.words.accuracy.value,
                "others": {
                    label: score.accuracy.value for label, score in under[task.name].items() if label != task.own.label
                },
            }
            for task in trained.tasks
        },
        "paraphrase_spread": max((found.spread for found in reworded.values()), default=None),
        "unseen_wordings": {
            task: {"configured": found.wordings[0].accuracy.value}
            | _least_mean_most([wording.accuracy.value for wording in found.wordings[1:]])
            for task, found in reworded.items()
        },
        "evidence": {
            "texts": trained.rows.num_texts,
            "flip_rate": _interval(trained.flip_rate),
            "own": {task.name: _interval(task.own.accuracy) for task in trained.tasks},
            "own_kappa": {task.name: _interval(task.own.kappa) for task in trained.tasks},
            "plain": {task.name: _interval(plain_of[task.own.label]) for task in trained.tasks},
            "above_plain": [
                task.name for task in trained.tasks if task.own.accuracy.low > plain_of[task.own.label].value
            ],
            "below_plain": [
                task.name for task in trained.tasks if task.own.accuracy.high < plain_of[task.own.label].value
            ],
            "untrained": {"separation": _interval(plain.separation), "flip_rate": _interval(plain.flip_rate)},
        },
    }


def aspect_figures(task: str, evaluation: Evaluation) -> dict[str, Any]:
    """Returns what a model makes of one task: of its own label, and held against the others."""
    own = next(found.own for found in evaluation.tasks if found.name == task)
    parts = [part for pair in evaluation.pairs for part in pair.separations if part.own == task]
    flips = [pair.flip.rate.value for pair in evaluation.pairs if pair.flip and task in {pair.first, pair.second}]
    return {
        "task": task,
        "own": own.accuracy.value,
        "own_kappa": own.kappa.value,
        "separation": _mean([part.difference.value for part in parts]),
        "flip_rate": _mean(flips),
    }


# Runs


def _evaluated(tree: Mapping[str, Any], request: EvaluateRequest) -> Evaluation:
    with Session(ConfigTree(tree, "configuration")) as refract:
        return refract.evaluate(request).evaluation


@dataclass(slots=True)
class _Stages:
    """When a run began what."""

    began_s: list[tuple[str, float]] = field(default_factory=list)

    def progress(self, doing: str, _done: int, _total: int) -> None:
        """Hears what begins."""
        self.began_s.append((doing, time.perf_counter()))

    def since(self, beginning: str) -> float:
        """Returns the seconds since the first stage whose name begins so."""
        return time.perf_counter() - next(at_s for doing, at_s in self.began_s if doing.startswith(beginning))


def _heads(folder: Path, max_texts: int) -> dict[str, Any]:
    """Fits heads to the training tickets."""
    stages = _Stages()
    with Session.open(TRAINED) as refract:
        tasks = list(refract.config.tasks)
        request = TuneRequest([str(DEMO / "training")], tasks, folder / "heads", method="head", max_texts=max_texts)
        card = refract.tune(request, progress=stages.progress).card
    seconds = stages.since("fitting the head of")
    return told("heads", 0, {"shuffled": card["shuffled_labels"], "head_train_s": seconds})


def _lora(output: Path, how: Mapping[str, Any]) -> dict[str, Any]:
    """Trains an adapter on the training tickets; returns its card."""
    with Session.open(TRAINED) as refract:
        request = TuneRequest(
            [str(DEMO / "training")],
            output=output,
            method="lora",
            wordings=DEMO / "wordings.json",
            **how,
        )
        return dict(refract.tune(request, watch=_tell_step).card)


def _tell_step(facts: StepFacts) -> None:
    told("step", facts.step - 1, facts.loss)


def _cost(folder: Path, texts: list[str], *, quick: bool) -> float:
    """Returns the time of four headed tasks over that of one, median of the runs."""
    engine, tokenizer, prompts = loaded(folder)
    texts = texts[: CHUNK * (2 if quick else 8)]
    works = {
        count: [
            Workload(engine, tokenizer, texts[at : at + CHUNK], prompts[f"{count}_headed"])
            for at in range(0, len(texts), CHUNK)
        ]
        for count in ("1", "4")
    }
    runs = [by_turns(works)[0] for _ in range(2 if quick else 4)][1:]  # the first warms up
    return median([told("cost", number, seconds["4"] / seconds["1"]) for number, seconds in enumerate(runs)])


# Parts


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _interval(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _least_mean_most(values: list[float]) -> dict[str, float]:
    return {"least": min(values), "mean": sum(values) / len(values), "most": max(values)}


if __name__ == "__main__":
    main()
