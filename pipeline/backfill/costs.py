"""What a backfill costs: time, money and room, from a sample of its input and a measured pace."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from pipeline.backfill.sample import Sample, Size, Tokens
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.engine.null import is_null
from pipeline.engine.spec import ENCODER_TYPES, ModelSpec, resolve

RAM_FACTOR = 1.5
"""Bytes of memory per byte of vector: the server's own rule of thumb for vectors with their index."""

POINT_BYTES = 160
"""On disk beside vector and payload: id, version and state, and where each of them stands."""

LOG_BYTES = 48_000_000
"""Of a collection's log, which holds everything once more until two segments of 32 MiB are full (one of them is then
dropped, so it is 34 to 67 MB; measured with Edge 0.9)."""

_VALUE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the whole path was on rows of this input, on this cluster."""

    first_s: float
    """From the start, Ray's and the models' included, until `first_rows` were written."""
    first_rows: float
    rows_per_s: float
    """From then on."""
    num_rows: float
    """Rows this was measured with, in all."""
    embedder_busy: float
    """Share of the time that embedders computed."""
    num_embedders: int

    def seconds(self, num_rows: float) -> float:
        """Returns how long a run of so many rows takes."""
        return self.first_s + max(num_rows - self.first_rows, 0.0) / self.rows_per_s


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """One task's part."""

    task: str
    model: str
    collection: str
    dimension: int
    points: int
    tokens: Tokens | None
    """None where the sample has no text."""
    share: float
    """Of what the embedders compute."""
    hours: float
    """Of the run."""
    price: float | None
    ram_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a backfill costs."""

    num_rows: int
    exact: bool
    seconds: float
    gpu_hours: float
    price: float | None
    """None without `ray.gpu_hour_price`, or without GPUs."""
    tasks: Sequence[TaskEstimate]
    savings: Sequence[str]


def estimate(config: Config, tasks: Sequence[Task], size: Size, sample: Sample, pace: Pace) -> CostEstimate:
    """Returns what a run over the whole input takes."""
    tokens = sample.tokens
    seconds = pace.seconds(size.num_rows)
    gpu_hours = seconds / 3_600 * _num_gpus(config, {task.config.model for task in tasks}, pace.num_embedders)
    price = gpu_hours * config.ray.gpu_hour_price if config.ray.gpu_hour_price and gpu_hours else None
    specs = {name: resolve(model) for name, model in config.models.items() if not is_null(model)}
    costs = _costs(tasks, specs, tokens)
    points = round(size.num_rows * sample.stored_share * (1 - sample.duplicate_keys))
    parts = []
    for task in tasks:
        share = costs[task.name] / (sum(costs.values()) or 1.0)
        vector_bytes = _VALUE_BYTES * task.dimension
        stored_bytes = points * (vector_bytes + sample.payload_bytes + POINT_BYTES)
        parts.append(
            TaskEstimate(
                task=task.name,
                model=task.config.model,
                collection=task.collection,
                dimension=task.dimension,
                points=points,
                tokens=tokens.get(task.name),
                share=share,
                hours=seconds / 3_600 * share,
                price=None if price is None else price * share,
                ram_bytes=round(points * vector_bytes * RAM_FACTOR),
                disk_bytes=round(stored_bytes + min(stored_bytes, LOG_BYTES)),
            )
        )
    return CostEstimate(
        num_rows=size.num_rows,
        exact=size.exact,
        seconds=seconds,
        gpu_hours=gpu_hours,
        price=price,
        tasks=parts,
        savings=[
            *(line for task in tasks if task.name in tokens for line in _instruction(task, specs, tokens[task.name])),
            *_duplicates(config, tasks, sample),
            *(line for part in parts for line in _dimension(part, specs)),
        ],
    )


def reuses_instructions(spec: ModelSpec) -> bool:
    """Whether the model may compute an instruction's keys and values once; the engine proves it at load."""
    both_ways = spec.bidirectional or spec.model_type in ENCODER_TYPES
    return not both_ways and spec.pooling == ("lasttoken",)


def _num_gpus(config: Config, models: Collection[str], num_embedders: int) -> float:
    """Returns the GPUs of the embedders that took part: a cluster may have no room for all that are asked for."""
    asked = {name: max(config.models[name].max_replicas or config.models[name].replicas, 1) for name in models}
    share = min(num_embedders / sum(asked.values()), 1.0)
    return share * sum(config.models[name].num_gpus * count for name, count in asked.items())


def _costs(tasks: Sequence[Task], specs: Mapping[str, ModelSpec], tokens: Mapping[str, Tokens]) -> dict[str, float]:
    """Returns what a row of each task costs to compute: tokens, weighted by the size of the model."""
    costs = {}
    for task in tasks:
        counted, spec = tokens.get(task.name), specs.get(task.config.model)
        computed = counted.prompt if counted else 1.0
        if counted and spec and reuses_instructions(spec):
            computed -= counted.reusable
        sharing = counted.num_sharing if counted else 1
        costs[task.name] = computed / sharing * (_size_of(spec) if spec else 1.0)
    return costs


def _size_of(spec: ModelSpec) -> float:
    """Layers times hidden size squared, to which the operations of a token are proportional."""
    config = orjson.loads((spec.files.folder / "config.json").read_bytes())
    layers = next((config[name] for name in ("num_hidden_layers", "num_layers", "n_layer") if name in config), 1)
    return float(layers) * spec.hidden_size**2


def _instruction(task: Task, specs: Mapping[str, ModelSpec], tokens: Tokens) -> list[str]:
    spec = specs.get(task.config.model)
    if spec is None or not tokens.reusable:
        return []
    share = tokens.reusable / tokens.prompt
    if reuses_instructions(spec):
        return [f"{task.name}: computing the instruction once saves {share:.0%} of its tokens, and is in the figures"]
    line = (
        f"{task.name}: {share:.0%} of its tokens are the instruction; a model that reads from left to right and pools "
        "the last token would compute them once, this one cannot"
    )
    return [line]


def _duplicates(config: Config, tasks: Sequence[Task], sample: Sample) -> list[str]:
    if not sample.duplicate_texts:
        return []
    return [
        f"models.{name}.cache_rows: at least {sample.duplicate_texts:.1%} of the texts repeat an earlier one; a cache "
        f"of rows computes them once"
        for name in sorted({task.config.model for task in tasks})
        if not config.models[name].cache_rows and not is_null(config.models[name])
    ]


def _dimension(part: TaskEstimate, specs: Mapping[str, ModelSpec]) -> list[str]:
    spec = specs.get(part.model)
    sizes = spec.matryoshka_dims if spec else None
    if not sizes:
        return []
    any_size = sizes[1:] == (-1,)
    smaller = [part.dimension // 2] if any_size else [size for size in sizes if 0 < size < part.dimension]
    smaller = [size for size in smaller if not any_size or size >= sizes[0]]
    if not smaller:
        return []
    size = max(smaller)
    saved = 1 - size / part.dimension
    room = f"{part.ram_bytes * saved / 1e9:,.2f} GB of RAM"
    return [
        f"tasks.{part.task}.dimension: {size} instead of {part.dimension} takes {saved:.0%} off the vectors: {room}"
    ]
