"""Estimate: what a backfill takes, from a sample of its input and the pace of its beginning; nothing is written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.backfill.costs import CostEstimate, Pace, estimate
from pipeline.backfill.executor import BackfillExecutor
from pipeline.backfill.rehearsal import rehearse
from pipeline.backfill.sample import Sample, Size, measure_size, prompt_tokens, take_sample
from pipeline.backfill.selection import checked_inputs, chosen_tasks, chosen_topic, unresolved_words, warnings
from pipeline.backfill.watch import Unwatched, Watch
from pipeline.backfill.work import BackfillJob
from pipeline.config.store import EdgeStoreConfig
from pipeline.context import Context
from pipeline.errors import RefractError

SERVER_POINTS_PER_S = 13_000
"""Guarded upserts of 384 values into one shard of a Qdrant 1.19 server on two cores, measured."""


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """Which backfill is meant."""

    inputs: Sequence[str]
    """As of `pipeline.usecases.backfill.BackfillRequest`, like topic and tasks."""
    topic: str | None = None
    tasks: Sequence[str] | None = None
    num_sampled: int = 2_000
    """Rows to look at."""


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """What a backfill takes. `tree` gives the fields that `refract plan --json` prints."""

    topic: str
    size: Size
    sample: Sample
    pace: Pace
    costs: CostEstimate
    server_s: float | None
    """What a server with one shard needs for the points, where the store is one: the pace is an embedded store's."""

    def tree(self) -> dict[str, Any]:
        """Returns the report as plain data."""
        size, sample = self.size, self.sample
        return {
            "input": {"files": size.num_files, "bytes": size.num_bytes, "rows": size.num_rows, "exact": size.exact},
            "sample": {
                "rows": sample.num_rows,
                "stored_share": sample.stored_share,
                "rejected": dict(sample.bad),
                "duplicate_texts": sample.duplicate_texts,
                "duplicate_keys": sample.duplicate_keys,
                "payload_bytes": sample.payload_bytes,
                "unreadable": sample.faults,
                "unresolved_paths": list(sample.unresolved_paths),
            },
            "pace": asdict(self.pace),
            **asdict(self.costs),
        }


def estimate_backfill(
    context: Context, request: EstimateRequest, executor: BackfillExecutor, watch: Watch | None = None
) -> EstimateReport:
    """Samples the input, carries its first rows through for some seconds into a store that is thrown away, and sums up.

    Raises ConfigError for what cannot work, RefractError where no row can be read, and what a backfill raises.
    """
    watch, config = watch or Unwatched(), context.config
    topic = chosen_topic(config, request.topic, request.inputs)
    tasks = [context.tasks[name] for name in chosen_tasks(config, topic, request.tasks)]
    job = BackfillJob(context.source, topic, [task.name for task in tasks])
    executor.check(job)
    inputs = checked_inputs(config, topic, request.inputs, watch.step)
    for text in warnings(config, topic, inputs):
        watch.note(text)
    fragments = inputs.fragments
    size = measure_size(fragments)
    if not size.num_rows:
        raise RefractError(f"no row of the input can be read (files: {size.num_files}); there is nothing to plan")
    parts = list(zip(fragments, size.rows, strict=True))
    sample = take_sample(parts, topic, config, request.num_sampled, watch.step)
    if sample.records and sample.unresolved_paths:
        watch.note(unresolved_words(sample.unresolved_paths, len(sample.records)))
    sample.tokens = prompt_tokens(context, tasks, sample.texts)
    pace = rehearse(executor, job, fragments, size.num_rows, watch.step)
    costs = estimate(config, tasks, size, sample, pace)
    num_points = sum(part.points for part in costs.tasks)
    server_s = None if isinstance(config.store, EdgeStoreConfig) else num_points / SERVER_POINTS_PER_S
    return EstimateReport(topic, size, sample, pace, costs, server_s)
