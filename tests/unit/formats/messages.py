"""Records as Confluent's own serializers write them, and what the pipeline makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.message_factory import GetMessageClass

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.records.decode import Decoders, RecordDecoder
from pipeline.records.record import Position, Record
from pipeline.records.schemas.protoc import load, run_protoc
from tests.registry import Registry
from tests.unit.decoding import NOW_MS

PLACE = Position("tickets", 2, 41, NOW_MS)


@dataclass(frozen=True)
class Configured:
    """What a topic is read by."""

    source: SourceConfig
    limits: LimitsConfig


def config(registry: Registry | None, limits: Mapping[str, int] | None = None, **topic: Any) -> Configured:
    """The configuration of a topic; None removes a setting."""
    settings = {"key": "id", "text": "{text}", "tasks": ["topic"], **topic}
    tree: dict[str, Any] = {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {"tickets": {name: value for name, value in settings.items() if value is not None}},
        "dead_letter_topic": "dead",
    }
    if registry is not None:
        tree["schema_registry"] = {"url": registry.url}
    return Configured(SourceConfig.model_validate(tree), LimitsConfig.model_validate(limits or {}))


def decoder(registry: Registry | None, limits: Mapping[str, int] | None = None, **topic: Any) -> RecordDecoder:
    """The decoder of a topic; None removes a setting."""
    found = config(registry, limits, **topic)
    return Decoders(found.source, found.limits, lambda: NOW_MS).of("tickets")


@dataclass
class Sent:
    """A record as a producer sends it."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)

    def decoded(self, by: RecordDecoder) -> Record:
        """Returns what a decoder makes of it."""
        return by.decode(self.key, self.value, PLACE, self.headers)


def client(registry: Registry) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry.url})


def avro_record(registry: Registry, schema: str, value: Any, *, key: bool = False, in_header: bool = False) -> Sent:
    """Returns a record whose value (or key) Confluent's serializer wrote."""
    headers: list[tuple[str, bytes | None]] = []
    settings: dict[str, Any] = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    part = MessageField.KEY if key else MessageField.VALUE
    written = AvroSerializer(client(registry), schema, conf=settings)(
        value, SerializationContext("tickets", part, headers)
    )
    return Sent(None, written, headers) if key else Sent(written, None, headers)


@lru_cache
def proto_message(name: str, **files: str) -> Any:
    """Returns the class of a message of the last of some .proto files; double underscores stand for slashes."""
    with TemporaryDirectory() as folder:
        for file, text in files.items():
            path = Path(folder, f"{file.replace('__', '/')}.proto")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        root = f"{list(files)[-1].replace('__', '/')}.proto"
        found = load(run_protoc(Path(folder), root), root)
    return GetMessageClass(found.pool.FindMessageTypeByName(name))


def protobuf_record(registry: Registry, message: Any, *, key: bool = False, in_header: bool = False) -> Sent:
    """Returns a record whose value (or key) Confluent's serializer wrote."""
    headers: list[tuple[str, bytes | None]] = []
    settings: dict[str, Any] = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    part = MessageField.KEY if key else MessageField.VALUE
    serializer = ProtobufSerializer(type(message), client(registry), conf={"use.deprecated.format": False, **settings})
    written = serializer(message, SerializationContext("tickets", part, headers))
    return Sent(None, written, headers) if key else Sent(written, None, headers)
