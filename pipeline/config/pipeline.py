"""The whole configuration of one pipeline, and its API, limits and actors."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.config.base import Name, Secret, Section
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.payload_fields import PayloadField
from pipeline.config.source import SourceConfig
from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.errors import ConfigError, nearest

BATCHES_PER_EMBEDDER = 2
"""Calls at an embedder that keep it busy: one computed, one waiting. Autoscaling aims at it."""

MAX_CONCURRENT_BATCHES = 256


class ApiConfig(Section):
    """The search API."""

    host: str = Field("127.0.0.1", description="Anything but loopback needs api_key.")
    port: int = Field(8000, ge=1, le=65_535, description="HTTP port of the whole app: search, health, status, metrics.")
    api_key: Secret | None = Field(
        None, description="Clients send it as `Authorization: Bearer` or `api-key`; write it as ${NAME}."
    )
    max_query_bytes: int = Field(
        32_768,
        ge=1,
        le=10_000_000,
        description="A longer query is refused with 413. Raising it lets one request hold an embedder longer.",
    )
    max_limit: int = Field(
        1_000, ge=1, le=100_000, description="Most hits of one search. Raising it lets one request cost the store more."
    )
    max_concurrent_requests: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Requests at work; above it the answer is 429 at once. Raising it lets a burst wait in line "
        "instead.",
    )

    @model_validator(mode="after")
    def _loopback_without_key(self) -> Self:
        if self.api_key is None and self.host not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError(f"host {self.host!r} is reachable from outside: set api.api_key, or use 127.0.0.1")
        return self


class LimitsConfig(Section):
    """Bounds that keep one bad record or a long outage from taking the machine."""

    max_record_bytes: int = Field(
        4_194_304,
        ge=1_024,
        le=104_857_600,
        description="A larger key plus value is a dead letter. Raising it lets one record take more memory in every "
        "process it passes.",
    )
    max_key_bytes: int = Field(
        4_096,
        ge=1,
        le=1_048_576,
        description="A longer key is a dead letter. Raising it makes every payload and log line that names the key "
        "longer.",
    )
    max_text_bytes: int = Field(
        1_048_576,
        ge=16,
        le=104_857_600,
        description="A longer assembled text is a dead letter; below it, truncation is by tokens. Raising it costs "
        "tokenizer time that truncation then throws away.",
    )
    max_payload_bytes: int = Field(
        65_536,
        ge=16,
        le=16_777_216,
        description="A larger stored payload is a dead letter. Raising it makes points, and so the store, bigger.",
    )
    max_payload_fields: int = Field(
        256,
        ge=0,
        le=10_000,
        description="More values in a stored payload, nested ones counted, is a dead letter. Raising it costs time "
        "per write.",
    )
    max_depth: int = Field(
        64,
        ge=2,
        le=500,
        description="Deeper nested JSON is a dead letter. No honest record comes near it, so raising it helps "
        "nobody's data.",
    )
    max_in_flight_bytes: int = Field(
        33_554_432,
        ge=65_536,
        le=17_179_869_184,
        description="Record bytes held by one ingestor, and 1 KiB for each record; at the bound its partitions are "
        "paused and polling goes on. Raising it costs memory and rides out longer pauses of the store.",
    )
    max_batch_records: int = Field(
        512,
        ge=1,
        le=4_096,
        description="Most records of one call to an embedder; a backfill takes up to four times as many while they are "
        "soon through. Raising it saves calls (some ms each) and, when busy, makes each record wait for more others.",
    )
    max_concurrent_batches: int = Field(
        4,
        ge=1,
        le=MAX_CONCURRENT_BATCHES,
        description="Calls one ingestor has under way: one computed, one written, the rest waiting. Raising it keeps "
        "more embedders busy and costs memory. Absent: 4, or as many as keep `max_replicas` embedders busy.",
    )
    max_dead_letter_share: float = Field(
        0.5,
        gt=0,
        le=1.0,
        description="Above this share of dead letters over the last 1,000 records the ingestor stops: then the "
        "configuration is wrong, not the records. Raising it forgives worse input; 1.0 never stops.",
    )


class RayConfig(Section):
    """The Ray side."""

    address: str | None = Field(
        None, description="auto, or host:port of a running cluster. Absent: `refract run` starts a local one."
    )
    ingestors: int = Field(
        1,
        ge=1,
        le=1_000,
        description="Members of the consumer group. Raising it shares the partitions among more processes; more of "
        "them than partitions stay idle.",
    )
    ingestor_cpus: float = Field(
        0.25, ge=0, le=64, description="CPUs Ray reserves for one ingestor. Raising it puts fewer on a machine."
    )
    namespace: Name = Field("refract", description="Ray namespace of named actors.")
    gpu_hour_price: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="What a GPU costs for an hour, in your currency: `refract plan` then prints the price of a "
        "backfill. Raising it raises that. Absent: no price is printed.",
    )


class Config(Section):
    """The whole file."""

    pipeline: Name = Field(
        description="Name of the pipeline. Part of every point id: renaming makes every point a new one."
    )
    source: SourceConfig = Field(description="Kafka.")
    models: dict[Name, ModelConfig] = Field(min_length=1, description="Models by name.")
    tasks: dict[Name, TaskConfig] = Field(min_length=1, description="Tasks by name.")
    store: EdgeStoreConfig | QdrantStoreConfig = Field(discriminator="type", description="Where the points go.")
    api: ApiConfig = Field(default_factory=ApiConfig, description="Search over HTTP.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Bounds.")
    ray: RayConfig = Field(default_factory=RayConfig, description="Actors.")

    @model_validator(mode="after")
    def _references(self) -> Self:
        for name, task in self.tasks.items():
            if task.model not in self.models:
                raise ValueError(
                    f"tasks.{name}.model: no model {task.model!r} in this file.{nearest(task.model, self.models)}"
                )
        for topic, config in self.source.topics.items():
            for task_name in config.tasks:
                if task_name not in self.tasks:
                    raise ValueError(
                        f"source.topics.{topic}.tasks: no task {task_name!r} in this "
                        f"file.{nearest(task_name, self.tasks)}"
                    )
        self._check_payload_types()
        owner: dict[str, str] = {}
        for name, task in self.tasks.items():
            other = owner.setdefault(task.collection or name, name)
            if other != name:
                raise ValueError(
                    f"tasks {other!r} and {name!r} both write collection {task.collection or name!r}: "
                    f"vectors of two tasks "
                    f"must never share a collection; give one of them another `collection`"
                )
        return self

    def _check_payload_types(self) -> None:
        """A collection has one index for a field, whatever topic its points come from."""
        first: dict[tuple[str, str], tuple[str, PayloadField]] = {}
        for topic, config in self.source.topics.items():
            for task in config.tasks:
                for name, field in config.payload.items():
                    other, known = first.setdefault((task, name), (topic, field))
                    if known.index != field.index:
                        raise ValueError(
                            f"source.topics.{topic}.payload.{name}: topic {other!r} stores a field of this name for "
                            f"task {task!r} with another type, tenant or on_disk; make them equal, or store one of "
                            f"them under another name"
                        )

    def tasks_of(self, model: str) -> dict[str, TaskConfig]:
        """Returns the tasks of a model, by name."""
        return {name: task for name, task in self.tasks.items() if task.model == model}

    def payload_of(self, task: str) -> dict[str, PayloadField]:
        """Returns the fields stored with a task's points, by name: those of every topic that names the task."""
        topics = [topic for topic in self.source.topics.values() if task in topic.tasks]
        return {name: field for topic in topics for name, field in topic.payload.items()}

    @property
    def live_limits(self) -> LimitsConfig:
        """`limits` as ingestors keep them.

        Unless the file says how many calls one has under way, they are enough to keep every embedder busy that
        autoscaling may start: with fewer it would never start them, whatever the lag.
        """
        if "max_concurrent_batches" in self.limits.model_fields_set:
            return self.limits
        enough = max(self.limits.max_concurrent_batches, min(self.calls_for_all_replicas, MAX_CONCURRENT_BATCHES))
        return self.limits.model_copy(update={"max_concurrent_batches": enough})

    @property
    def calls_for_all_replicas(self) -> int:
        """Calls that each ingestor needs under way to have `max_replicas` of the most replicated model at work."""
        replicas = max(max(model.max_replicas or 0, model.replicas) for model in self.models.values())
        return -(-BATCHES_PER_EMBEDDER * replicas // self.ray.ingestors)

    def topic_named(self, name: str | None, option: str = "--topic") -> str:
        """Returns the name of a source topic: the given one, or the only one.

        Raises ConfigError for an unknown topic, and where no name is given and there are several; `option` says in
        the message where the name came from.
        """
        topics = self.source.topics
        if name is None:
            if len(topics) > 1:
                raise ConfigError(f"choose one of the source topics with {option}: {', '.join(topics)}")
            return next(iter(topics))
        if name not in topics:
            raise ConfigError(f"{option}: this file has no source topic {name!r}.{nearest(name, topics)}")
        return name
