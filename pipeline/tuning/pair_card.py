"""The card of an adapter that was trained on pairs of queries and documents."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.tuning.card import Base, run_facts
from pipeline.tuning.folder import Card
from pipeline.tuning.pair_tuner import PairTuner, TunedPairs
from pipeline.tuning.query_pairs import PairScore
from pipeline.version import __version__


def make_pair_card(tuner: PairTuner, tuned: TunedPairs, base: Base) -> Card:
    """Returns the card of a finished run. It names counts, settings and figures, and holds no query or document."""
    data, split = tuner.data, tuner.split
    counts = Counter(pair.task for pair in data.pairs)
    facts: dict[str, Any] = {
        "refract": __version__,
        "method": "lora",
        "base": asdict(base),
        "tasks": {
            name: {"instruction": task.query_instruction or task.instruction, "pairs": counts[name]}
            for name, task in tuner.tasks.items()
        },
        "instructions": len(data.tasks),
        "data": {
            "sha256": data.sha256,
            "rows": data.num_lines,
            "pairs": len(data.pairs),
            "documents": len(data.documents),
            "train": len(split.train),
            "select": len(split.select),
            "report": len(split.report),
            "near_copies": split.num_copies,
            "moved_to_their_copies": split.num_moved,
        },
        "seed": tuner.settings.seed,
        "before": _figures(tuner.before),
        "after": _figures(tuned.after),
        **run_facts(tuner.settings, tuned.outcome, tuned.general),
        "exclude_instruction": tuner.spec.exclude_instruction,
    }
    return Card(facts, _readme(facts))


def _figures(score: PairScore) -> dict[str, Any]:
    return {
        "documents": score.num_documents,
        "queries": dict(score.num_queries),
        "recall_at_1": {task: found.rounded() for task, found in score.recall_at_1.items()},
        "ndcg_at_10": {task: found.rounded() for task, found in score.ndcg_at_10.items()},
    }


def _readme(facts: Mapping[str, Any]) -> str:
    data, before, after = facts["data"], facts["before"], facts["after"]
    lines = [
        "---",
        f"base_model: {facts['base']['name']}",
        "library_name: peft",
        "---",
        "",
        "# LoRA adapter for retrieval",
        "",
        (
            f"Made by `refract tune` {facts['refract']} from {data['pairs']:,} queries and {data['documents']:,} "
            f"documents: {data['train']:,} queries to train on, {data['select']:,} to select by, {data['report']:,} "
            f"for the figures below, each asked of {after['documents']:,} documents."
        ),
        "",
        "| Task | Recall at 1 | nDCG at 10 |",
        "|---|---|---|",
        *(
            f"| {task} | {_change(before, after, 'recall_at_1', task)} | {_change(before, after, 'ndcg_at_10', task)} |"
            for task in after["queries"]
        ),
        "",
    ]
    if general := facts["general_recall_at_1"]:
        lines += [f"- Recall at 1 of plain pairs: {general['before']:.2f} → {general['after']:.2f}", ""]
    return "\n".join(lines)


def _change(before: Mapping[str, Any], after: Mapping[str, Any], name: str, task: str) -> str:
    found = after[name][task]
    return f"{before[name][task]['value']:.2f} → {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
