"""Decoding a record by each format: from bytes to key, version, text and payload, on one core.

json_us, avro_us, protobuf_us   CPU time of a record
avro_ratio, protobuf_ratio      over that of JSON
"""

import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro
import orjson
from google.protobuf.message_factory import GetMessageClass

from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import SourceConfig
from pipeline.records.decode import Decoders
from pipeline.records.record import Position
from pipeline.records.schemas.protoc import load, run_protoc
from tests.benchmarks import _harness as harness

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "updated", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "title", "type": ["null", "string"]},
        {"name": "body", "type": "string"},
        {"name": "team", "type": "string"},
        {"name": "priority", "type": "int"},
        {"name": "score", "type": "double"},
        {"name": "open", "type": "boolean"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {
            "name": "customer",
            "type": {
                "type": "record",
                "name": "Customer",
                "fields": [{"name": "name", "type": "string"}, {"name": "country", "type": ["null", "string"]}],
            },
        },
    ],
}
PROTOBUF = """syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Ticket {
  string id = 1;
  google.protobuf.Timestamp updated = 2;
  optional string title = 3;
  string body = 4;
  string team = 5;
  int32 priority = 6;
  double score = 7;
  bool open = 8;
  repeated string tags = 9;
  message Customer { string name = 1; optional string country = 2; }
  Customer customer = 10;
}
"""
TOPIC = {
    "key": "id",
    "text": "{title?}\n\n{body}",
    "version": "updated",
    "version_type": "time",
    "payload": {"team": "keyword", "priority": "integer", "tags": "keyword[]", "country": {"path": "customer.country"}},
    "tasks": ["topic"],
}
NOW_US = 1_790_000_000_000_000
NUM_RECORDS = 5_000


def main() -> None:
    """Decodes the same tickets in every format and prints the table."""
    given = harness.arguments(__doc__)
    tickets = [ticket(number, text) for number, text in enumerate(harness.tickets(NUM_RECORDS))]
    with tempfile.TemporaryDirectory() as name:
        values = written(tickets, Path(name))
        decoders = made(Path(name))
        times: dict[str, list[float]] = {kind: [] for kind in values}
        # In turns, so that a busy moment of the machine meets all of them.
        for run in range(given.runs):
            for kind, records in values.items():
                times[kind].append(harness.told(kind, run, microseconds(decoders.of(kind).decode, records)))
    figures = {f"{kind}_us": harness.median(found) for kind, found in times.items()}
    figures |= {f"{kind}_ratio": figures[f"{kind}_us"] / figures["json_us"] for kind in ("avro", "protobuf")}
    bytes_of = {f"{kind}_bytes": sum(map(len, records)) / len(records) for kind, records in values.items()}
    harness.report(figures, {"records": len(tickets), **bytes_of}, given.json)


def ticket(number: int, text: str) -> dict[str, Any]:
    """A ticket of ten fields."""
    return {
        "id": f"T-{number}",
        "updated": NOW_US + number,
        "title": text[:40],
        "body": text,
        "team": ("billing", "shipping", "accounts")[number % 3],
        "priority": number % 5,
        "score": number / 7,
        "open": number % 2 == 0,
        "tags": ["mail", "new"],
        "customer": {"name": f"Customer {number}", "country": "NL"},
    }


def written(tickets: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, list[bytes]]:
    """Returns the tickets as bytes by format, and writes the schemas into a folder."""
    (folder / "ticket.avsc").write_text(json.dumps(AVRO))
    (folder / "ticket.proto").write_text(PROTOBUF)
    avro = fastavro.parse_schema(AVRO)
    message = GetMessageClass(load(run_protoc(folder, "ticket.proto"), "ticket.proto").message_types_by_name["Ticket"])
    found: dict[str, list[bytes]] = {"json": [], "avro": [], "protobuf": []}
    for each in tickets:
        us = each["updated"]
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, avro, each)
        at = {"seconds": us // 1_000_000, "nanos": us % 1_000_000 * 1_000}
        found["json"].append(
            orjson.dumps({**each, "updated": f"{time.strftime('%FT%T', time.gmtime(at['seconds']))}Z"})
        )
        found["avro"].append(stream.getvalue())
        found["protobuf"].append(message(**{**each, "updated": at}).SerializeToString())
    return found


def made(folder: Path) -> Decoders:
    """Returns the decoders of a topic per format."""
    formats = {
        "json": {},
        "avro": {"format": "avro", "schema_file": str(folder / "ticket.avsc")},
        "protobuf": {"format": "protobuf", "schema_file": str(folder / "ticket.proto"), "message": "Ticket"},
    }
    source = {
        "bootstrap_servers": ["b:1"],
        "group_id": "g",
        "topics": {name: {**TOPIC, **settings} for name, settings in formats.items()},
        "dead_letter_topic": "dead",
    }
    return Decoders(SourceConfig.model_validate(source), LimitsConfig())


def microseconds(decode: Callable[..., Any], records: Sequence[bytes]) -> float:
    """Returns the CPU time of a record, of this thread alone."""
    begin_s = time.thread_time()
    for offset, record in enumerate(records):
        decode(None, record, Position("tickets", 0, offset, -1), ())
    return (time.thread_time() - begin_s) / len(records) * 1e6


if __name__ == "__main__":
    main()
