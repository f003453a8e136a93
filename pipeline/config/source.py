"""The Kafka side: brokers, security, and how each topic is read."""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Broker, FieldPath, FilePath, Name, Section, TopicName, is_field_path
from pipeline.config.formats import Format, KeyFormat, PartFormat, SchemaRegistryConfig
from pipeline.config.keys import KeyPaths, KeyType, shared_keys_fault
from pipeline.config.payload_fields import PayloadField, is_stored_name, long_forms
from pipeline.config.security import SecurityConfig

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
"""A field path in `TopicConfig.text`; a trailing `?` marks a field that may be null or absent."""


class DeleteMarker(Section):
    """A record whose field has this value deletes its key, as a record with a null value does."""

    field: FieldPath = Field(description="Path of the field to look at.")
    equals: str | int | float | bool | None = Field(
        description="The value that means deleted: a text, a number, true, false or null, and of that type. Cells of a "
        "CSV are read as what this is."
    )


class TopicConfig(Section):
    """How one topic's records become a key, a text, a version and a payload, and which tasks embed them."""

    format: Format = Field(
        "json",
        description="How record values are encoded. json: an object. json_schema, avro, protobuf: with a schema id in "
        "front, or in a header, as Confluent's serializers write; the schema comes from `schema_registry`. string: "
        "the value is the text, named {value}.",
    )
    schema_file: FilePath | None = Field(
        None,
        description="avro, protobuf: values have no schema id, and all are of this schema: an .avsc file, or a .proto "
        "file or a compiled descriptor set (.desc, .pb).",
    )
    message: str | None = Field(
        None, description="protobuf with schema_file: full name of the values' message. Absent: the only one."
    )
    key: KeyPaths | None = Field(
        None,
        description="Path of the field that identifies a record, or a list of the paths of several that do together. "
        "Absent: the Kafka message key, as `kafka_key` says; of an object with several fields all of them.",
    )
    key_type: KeyType | list[KeyType] = Field(
        "string",
        description='What keys are, or a list with the type of each field of `key`: 1 and "1" are two keys, so a field '
        "of the other type is a dead letter. It also says how the Kafka message key is read, which names what a record "
        "with a null value deletes.",
    )
    key_space: TopicName | None = Field(
        None,
        description="Records of topics with one key space share their points: an equal key is the same record, and "
        "its newest version wins. Absent: the topic's name, so that two topics never overwrite each other.",
    )
    kafka_key: KeyFormat | None = Field(
        None,
        description="How the Kafka message key spells the key. text: as UTF-8. json: a JSON string or integer, or an "
        "object that has it at the path `key`, as Kafka Connect's JsonConverter writes. int32, int64: big-endian, as "
        "Kafka's own serializers write. json_schema, avro, protobuf: as `format`, and an object as with json. Absent: "
        "text, but where `key` names a field a null value whose Kafka key looks "
        "like JSON or binary is a dead letter, because it would delete nothing.",
    )
    key_schema_file: FilePath | None = Field(None, description="As schema_file, of Kafka keys.")
    key_message: str | None = Field(None, description="As message, of Kafka keys.")
    binary_key: bool = Field(False, description="Kafka keys are not text: use their bytes, as hex.")
    text: str = Field(
        min_length=1,
        max_length=4096,
        description='What is embedded: "{title}\\n\\n{body}" replaces each {path} literally by that field; '
        "{path?} may be null or absent.",
    )
    on_empty_text: Literal["dead_letter", "delete"] = Field(
        "dead_letter", description="What a record whose text is empty after stripping means."
    )
    version: FieldPath | None = Field(
        None,
        description="Path of the field that says how new a record is: an integer, or an RFC 3339 time. Absent: the "
        "generation and Kafka offset.",
    )
    version_type: Literal["integer", "time"] | None = Field(
        None,
        description="integer: `version` counts, and a null value must carry its version in the header "
        "refract-version. time: `version` is RFC 3339, kept in microseconds, or an integer of milliseconds, and "
        "a null value's is Kafka's timestamp. Absent: integers and RFC 3339 times, the latter in milliseconds, and a "
        "null value needs the header.",
    )
    generation: int = Field(
        0,
        ge=0,
        le=8190,
        description="Raise it by one after the topic was recreated or repartitioned, when `version` is absent.",
    )
    max_version_ahead_s: int = Field(
        300,
        ge=0,
        le=10**9,
        description="A time version further in the future is a dead letter: it would block its key until then. "
        "Raising it forgives producers whose clocks are ahead.",
    )
    delete_when: DeleteMarker | None = Field(None, description="A marker, besides the null value, that deletes a key.")
    payload: dict[str, PayloadField] = Field(
        default_factory=dict,
        description="Fields stored beside the vector; searches can filter on them. A list of paths, or {stored name: "
        "path}, {stored name: type} or {stored name: {path, type, tenant, on_disk}}. A type makes filters on numbers, "
        "times and words fast, and possible on a server in strict mode.",
    )
    on_bad_payload: Literal["drop", "dead_letter"] = Field(
        "drop",
        description="What a value that does not fit its field's type means: the field is left out and counted in "
        "refract_payload_values_dropped_total, or the record is a dead letter.",
    )
    payload_headers: list[str] = Field(
        default_factory=list, description="Kafka headers stored in the payload, as text."
    )
    payload_timestamp: bool = Field(False, description="Stores Kafka's timestamp as `timestamp_ms`.")
    schema_version: dict[str, FieldPath | int] | None = Field(
        None,
        description="{field: path, max: n}: a record with a larger number is a dead letter, to replay after an "
        "upgrade.",
    )
    tasks: list[Name] = Field(min_length=1, description="Tasks that embed this topic's records.")

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The field paths named by `text`, in order, without the `?` of optional ones."""
        return tuple(path.removesuffix("?") for path in PLACEHOLDER.findall(self.text))

    @property
    def key_paths(self) -> tuple[str, ...]:
        """The fields that are the key; none where it is the Kafka key."""
        return (self.key,) if isinstance(self.key, str) else self.key or ()

    @property
    def key_types(self) -> tuple[KeyType, ...]:
        """The type of each field of `key`, or of the Kafka key."""
        count = max(len(self.key_paths), 1)
        return (self.key_type,) * count if isinstance(self.key_type, str) else tuple(self.key_type)

    @property
    def values_as(self) -> PartFormat:
        """How values are encoded."""
        return PartFormat("", "format", self.format, self.schema_file, self.message)

    @property
    def keys_as(self) -> PartFormat:
        """How Kafka keys are encoded."""
        return PartFormat("key_", "kafka_key", self.kafka_key, self.key_schema_file, self.key_message)

    @property
    def payload_fields(self) -> dict[str, str]:
        """Stored name -> path."""
        return {name: field.path or name for name, field in self.payload.items()}

    @field_validator("payload", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return long_forms(value)

    @property
    def watched_paths(self) -> tuple[str, ...]:
        """Paths that records may lack without an error: a misspelt one is found only by never having a value."""
        paths = [*self.placeholders, *self.payload_fields.values()]
        if self.delete_when is not None:
            paths.append(self.delete_when.field)
        if self.schema_version is not None:
            paths.append(str(self.schema_version["field"]))
        return tuple(dict.fromkeys(paths))

    @model_validator(mode="after")
    def _encoded(self) -> Self:
        paths = [*self.watched_paths, *self.key_paths, *filter(None, (self.version,))]
        for settings in (self.values_as, self.keys_as):
            if fault := settings.fault(paths):
                raise ValueError(fault)
        if len(self.key_types) != max(len(self.key_paths), 1):
            raise ValueError("key_type must be one type, or a list of as many as `key` has fields")
        return self

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.placeholders:
            raise ValueError(f"text {self.text!r} names no field; write for example '{{title}}\\n\\n{{body}}'")
        self._check_names()
        reserved = [name for name in self.payload_fields if name.startswith("_")]
        if reserved:
            raise ValueError(
                f"payload name {reserved[0]!r} begins with '_', which is kept for _key, _version, "
                f"_state and their like; "
                f"store it under another name: payload: {{{reserved[0].lstrip('_') or 'name'}: "
                f"{self.payload_fields[reserved[0]]}}}"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks names a task twice")
        if self.binary_key and self.key is not None:
            raise ValueError("binary_key speaks of the Kafka key, but `key` names a field; drop one of them")
        if self.binary_key and self.key_type != "string":
            raise ValueError("binary_key takes bytes as they are; drop key_type: integer")
        if self.binary_key and self.kafka_key is not None:
            raise ValueError("binary_key takes bytes as they are; drop kafka_key")
        if self.kafka_key in {"int32", "int64"} and self.key_types != ("integer",):
            raise ValueError(f"kafka_key {self.kafka_key} spells integers; set key_type: integer")
        if self.version_type is not None and self.version is None:
            raise ValueError("version_type speaks of the field `version`, which is not given")
        return self

    def _check_names(self) -> None:
        schema = self.schema_version
        if schema is not None and (set(schema) != {"field", "max"} or type(schema["max"]) is not int):
            raise ValueError("schema_version needs exactly `field` and `max`, a path and a whole number")
        for path in self.placeholders:
            if not is_field_path(path):
                raise ValueError(f"text: {{{path}}} names no field: a field path is names joined by single dots")
        for name in (*self.payload, *self.payload_headers):
            if not is_stored_name(name):
                raise ValueError(
                    f"payload name {name!r}: the store cannot name it; expected a name without quotes and backslashes"
                )
        taken = set(self.payload_fields) | ({"timestamp_ms"} if self.payload_timestamp else set())
        for name in self.payload_headers:
            if name.startswith("_") or name in taken:
                raise ValueError(f"payload_headers {name!r} would overwrite the payload field of that name")
            taken.add(name)


class SourceConfig(Section):
    """The Kafka side. Names as Kafka spells them."""

    bootstrap_servers: list[Broker] = Field(
        min_length=1, description="host:port of some brokers, as a list or as one text with commas."
    )
    group_id: str = Field(min_length=1, max_length=249, description="Consumer group; offsets are committed under it.")
    group_instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="Static membership: each ingestor appends its number, and on KubeRay a token of its cluster. A "
        "restart within session_timeout_ms moves no partition. Two clusters of one group elsewhere need two values.",
    )
    client_id: str = Field("refract", description="Shown in the brokers' logs.")
    security: SecurityConfig = Field(default_factory=SecurityConfig, description="TLS and SASL.")
    topics: dict[TopicName, TopicConfig] = Field(min_length=1, description="Topics by name.")
    schema_registry: SchemaRegistryConfig | None = Field(
        None, description="The schema registry of topics whose `format` or `kafka_key` is avro or protobuf."
    )
    dead_letter_topic: TopicName = Field(
        description="Receives the records that can never be stored, with a reason. Must exist, or be creatable.",
    )
    start_from: Literal["earliest", "latest"] = Field(
        "earliest",
        description="Where a group without committed offsets starts. Later, a vanished offset is never skipped "
        "silently.",
    )
    api_version: list[int] | None = Field(
        None, min_length=2, max_length=3, description="Skips the version probe; only for brokers that do not answer it."
    )
    session_timeout_ms: int = Field(
        45_000,
        ge=1_000,
        le=1_800_000,
        description="Raising it tolerates longer pauses and finds a dead ingestor later.",
    )
    heartbeat_interval_ms: int = Field(
        3_000,
        ge=100,
        le=600_000,
        description="At most a third of session_timeout_ms. Raising it saves requests and makes a rebalance start "
        "later.",
    )
    max_poll_interval_ms: int = Field(
        300_000,
        ge=10_000,
        le=86_400_000,
        description="The loop polls several times a second, so this only fires when it hangs. Raising it finds that "
        "later.",
    )
    max_poll_records: int = Field(2_000, ge=1, le=100_000, description="Raising it costs memory and saves calls.")
    max_partition_fetch_bytes: int = Field(
        4_194_304,
        ge=1_024,
        le=104_857_600,
        description="Raising it speeds up catching up and costs memory per partition.",
    )
    max_inflated_batch_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        le=17_179_869_184,
        description="A compressed batch that inflates to more stops whoever reads it, before it takes the memory. "
        "Raising it lets one batch take about twice that in every process that reads topics.",
    )
    commit_interval_s: float = Field(
        1.0, gt=0, le=60, description="Raising it saves commits and repeats more after a crash."
    )

    @property
    def key_spaces(self) -> dict[str, str]:
        """Topic -> its key space."""
        return {name: topic.key_space or name for name, topic in self.topics.items()}

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _comma_lists(cls, value: Any) -> Any:
        """Takes Kafka's own spelling `a:9092,b:9092`, with or without a comma at its end, as a list or as one text."""
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return [stripped for item in items for server in item.split(",") if (stripped := server.strip())]
        return value

    @model_validator(mode="after")
    def _schemas_known(self) -> Self:
        if self.schema_registry is None:
            for name, topic in self.topics.items():
                for settings in (topic.values_as, topic.keys_as):
                    if fault := settings.fault_without_registry(f"topics.{name}."):
                        raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError("heartbeat_interval_ms must be at most a third of session_timeout_ms")
        if self.max_poll_interval_ms < self.session_timeout_ms:
            raise ValueError(
                "max_poll_interval_ms must be at least session_timeout_ms: else the group waits for a member that has "
                "already been told to leave"
            )
        if self.dead_letter_topic in self.topics:
            raise ValueError(
                f"dead_letter_topic {self.dead_letter_topic!r} is also a source topic: its records "
                f"would go round in circles"
            )
        if fault := shared_keys_fault(self.topics):
            raise ValueError(fault)
        for topic in (*self.topics, self.dead_letter_topic):
            if topic.startswith("__"):
                raise ValueError(f"topic {topic!r} is internal to Kafka")
            if topic in {".", ".."}:
                raise ValueError(f"{topic!r} is not a valid topic name")
        return self
