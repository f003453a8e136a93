"""The card of a folder: what was trained on what, and what came of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.tuning.folder import Card
from pipeline.tuning.general import General
from pipeline.tuning.loop import TrainingOutcome
from pipeline.tuning.matrix import figures
from pipeline.tuning.settings import LoraSettings
from pipeline.tuning.tuner import Tuned, Tuner
from pipeline.version import __version__


@dataclass(frozen=True, slots=True)
class Base:
    """The model below."""

    name: str
    """As written into the folder."""
    revision: str | None


def make_card(tuner: Tuner, tuned: Tuned, base: Base) -> Card:
    """Returns the card of a finished run. It names counts, settings and figures, and holds no text of a record."""
    facts = _facts(tuner, tuned, base)
    return Card(facts, _readme(facts, tuned))


def _facts(tuner: Tuner, tuned: Tuned, base: Base) -> dict[str, Any]:
    data, split = tuner.data, tuner.split
    facts: dict[str, Any] = {
        "refract": __version__,
        "method": tuned.method,
        "base": asdict(base),
        "tasks": {
            name: {
                "instruction": task.instruction,
                "label": data.labels[name].name,
                "classes": dict(zip(data.labels[name].classes, data.labels[name].counts.tolist(), strict=True)),
                "wordings": tuner.wordings.by_task[name][1:] if tuned.method == "lora" else [],
            }
            for name, task in tuner.tasks.items()
        },
        "data": {
            "sha256": data.sha256,
            "rows": data.rows.num_read,
            "texts": len(data.texts),
            "train": len(split.train),
            "select": len(split.select),
            "report": len(split.report),
            "near_copies": split.num_copies,
            "moved_to_their_copies": split.num_moved,
        },
        "seed": tuner.settings.seed,
        "before": figures(tuner.before),
        "after": figures(tuned.after),
        "shuffled_labels": None if tuned.shuffled is None else _rounded(tuned.shuffled),
    }
    if tuned.outcome is not None:
        facts |= _lora_facts(tuner, tuned)
    else:
        facts["heads"] = {
            task: {"fitted": head.method, "selection_score": round(head.score, 4)} for task, head in tuned.heads.items()
        }
    return facts


def _lora_facts(tuner: Tuner, tuned: Tuned) -> dict[str, Any]:
    assert tuned.outcome is not None  # noqa: S101 - of a LoRA run
    return run_facts(tuner.settings, tuned.outcome, tuned.general) | {
        "exclude_instruction": tuner.spec.exclude_instruction
    }


def run_facts(settings: LoraSettings, outcome: TrainingOutcome, general: General | None) -> dict[str, Any]:
    """Returns what a card says of a run of the LoRA loop."""
    state = outcome.state
    return {
        "settings": asdict(settings),
        "steps": {"planned": state.steps, "done": state.step, "kept": state.best_step},
        "training_s": round(state.seconds, 1),
        "stopped": outcome.stopped,
        "selection": [[step, round(score, 4)] for step, score in state.scores],
        "general_recall_at_1": None
        if general is None
        else {"before": round(general.before, 4), "after": round(general.after, 4)},
        "scale": 1.0 if general is None else general.scale,
    }


def _readme(facts: Mapping[str, Any], tuned: Tuned) -> str:
    data, tasks = facts["data"], facts["tasks"]
    kind = "LoRA adapter that reads instructions" if tuned.method == "lora" else "Linear heads, one per task"
    lines = [
        "---",
        f"base_model: {facts['base']['name']}",
        *(["library_name: peft"] if tuned.method == "lora" else []),
        "---",
        "",
        f"# {kind}",
        "",
        (
            f"Made by `refract tune` {facts['refract']} from {data['texts']:,} labelled texts: {data['train']:,} to "
            f"train on, {data['select']:,} to select by, {data['report']:,} for the figures below."
        ),
        "",
        "| Task | Instruction | Label | Classes |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_cell(task['instruction'] or 'none')} | {task['label']} | {len(task['classes'])} |"
            for name, task in tasks.items()
        ),
        "",
        "Share of texts whose five nearest neighbours say the text's own class, before and after:",
        "",
        *_matrix(facts),
        "",
        *_headlines(facts),
        "",
    ]
    return "\n".join(lines)


def _matrix(facts: Mapping[str, Any]) -> list[str]:
    before, after = facts["before"]["accuracy"], facts["after"]["accuracy"]
    labels = list(next(iter(after.values())))
    rows = [
        f"| {name} | " + " | ".join(f"{before[name][label]:.2f} → {after[name][label]:.2f}" for label in labels) + " |"
        for name in after
    ]
    return [f"| under | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|", *rows]


def _headlines(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, title in (("separation", "Separation"), ("flip_rate", "Flip rate")):
        before, after = facts["before"][name], facts["after"][name]
        if before and after:
            lines.append(
                f"- {title}: {before['value']:.2f} → {after['value']:.2f} ({after['low']:.2f} to {after['high']:.2f})"
            )
    if facts["shuffled_labels"]:
        chance = ", ".join(f"{task} {value:+.2f}" for task, value in facts["shuffled_labels"].items())
        lines.append(f"- κ after learning shuffled labels (0 is chance): {chance}")
    general = facts.get("general_recall_at_1")
    if general:
        lines.append(f"- Recall at 1 of plain pairs: {general['before']:.2f} → {general['after']:.2f}")
    return lines


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
