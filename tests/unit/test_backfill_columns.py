"""A row of a file means what the same JSON object would mean in the topic; columns that cannot work stop everything."""

import datetime as dt
import decimal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentFault, FragmentReader
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, RecordError
from pipeline.records.decode import Decoders
from pipeline.records.files.schema import Column, check_schema, needs_of
from pipeline.records.record import Delivery
from tests.unit.decoding import NOW_MS, decode
from tests.unit.test_backfill import config_of

HOUR = dt.timedelta(hours=1)
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678_901, dt.UTC)
LONG = "x" * 3_000

COLUMNS: Sequence[tuple[str, Any, dict[str, Any]]] = [
    ("plain text", pa.array(["a", "b", "c"]), {}),
    ("text of other types", pa.array(["a", None, "c"], pa.large_string()), {}),
    ("repeated text", pa.array(["a", "a", None]).dictionary_encode(), {}),
    ("bytes", pa.array([b"one", b"two \xc3\xa9", None]), {}),
    ("blank text", pa.array([" ", "", "\u200b"]), {}),
    ("text with quotes, control characters and emoji", pa.array(['"\\', "\x00\x1f\n", "\U0001f600"]), {}),
    ("text above the limit", pa.array([LONG, "x" * 2_048, "\x01" * 700]), {}),
    ("integers", pa.array([1, -1, None]), {}),
    ("the largest integers", pa.array([2**64 - 1, 2**63, 0], pa.uint64()), {}),
    ("floats", pa.array([1.5, float("nan"), float("-inf")]), {}),
    ("booleans", pa.array([True, False, None]), {}),
    ("decimals", pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")]), {}),
    ("times with a zone", pa.array([MOMENT, None, MOMENT - HOUR], pa.timestamp("us", "Europe/Berlin")), {}),
    ("times without one", pa.array([MOMENT.replace(tzinfo=None)] * 3, pa.timestamp("ms")), {}),
    ("dates", pa.array([MOMENT.date(), None, MOMENT.date()]), {}),
    ("lists", pa.array([[1, 2], [], None]), {}),
    (
        "structs",
        pa.array([{"name": "a", "size": 1.0}, {"name": None, "size": float("nan")}, None]),
        {"text": "{x.name}"},
    ),
    ("deep structs", pa.array([{"a": {"b": {"c": [{"d": 1}]}}}, None, None]), {"payload": {"deep": "x.a.b"}}),
    ("a delete marker", pa.array(["gone", "here", None]), {"delete_when": {"field": "x", "equals": "gone"}}),
    ("versions", pa.array([5, 2**53, -1]), {"version": "x", "text": "{t}"}),
    ("versions as times", pa.array([MOMENT, None, MOMENT.replace(year=2099)]), {"version": "x", "text": "{t}"}),
    ("versions as text", pa.array(["2026-01-01T00:00:00Z", "7", None]), {"version": "x", "text": "{t}"}),
    ("schema versions", pa.array([1, 9, None]), {"schema_version": {"field": "x", "max": 2}, "text": "{t}"}),
    ("integer keys", pa.array([1, None, -7]), {"key": "x", "key_type": "integer", "text": "{t}"}),
    ("keys of the wrong type", pa.array([1, 2, 3]), {"key": "x", "text": "{t}"}),
]


def as_json(row: dict[str, Any]) -> bytes:
    """What a producer of the same row would have sent; an instant in UTC."""
    clean = {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
    clean |= {name: at.astimezone(dt.UTC) for name, at in row.items() if isinstance(at, dt.datetime) and at.tzinfo}
    return orjson.dumps(clean, default=str)


@pytest.mark.parametrize(("what", "column", "topic"), COLUMNS, ids=[what for what, _, _ in COLUMNS])
def test_a_row_means_what_its_json_means_in_the_topic(
    what: str, column: Any, topic: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.backfill.rows.Decoders", partial(Decoders, clock_ms=lambda: NOW_MS))
    table = pa.table({"k": ["1", "2", "3"], "t": ["some text"] * 3, "x": column})
    pq.write_table(table, tmp_path / "a.parquet")
    limits = {"max_text_bytes": 2_048, "max_record_bytes": 3_500}
    settings = {"key": "k", "text": "{x}", "payload": ["x", "t"], "version": None, "generation": 1} | topic
    config = config_of(tmp_path, limits, **settings)
    found = FragmentReader(config, "tickets").deliveries(list_inputs([str(tmp_path / "a.parquet")]).fragments[0])
    for number, (delivery, row) in enumerate(zip(found, table.to_pylist(), strict=True), start=1):
        try:
            key = row[settings["key"]]
            expected = decode(as_json(row), None if key is None else str(key).encode(), limits=limits, **settings)
        except RecordError as error:
            assert (delivery.error, delivery.detail) == (error.reason, f"row {number}: {error.detail}")  # noqa: PT017
            continue
        record = delivery.record
        assert record is not None, (what, row, delivery)
        assert (record.key, record.text) == (expected.key, expected.text)
        assert _user(record.payload) == _user(expected.payload)
        assert record.version == (expected.version if settings["version"] else 0)


def _user(payload: Any) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if not name.startswith("_source")}


def test_text_that_is_not_utf_8_is_a_row_refused_and_no_file_lost(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"fine"]).cast(pa.binary())
    for kind in (pa.binary(), pa.large_binary()):
        pq.write_table(
            pa.table({"id": ["a", "b", "c"], "title": texts.cast(kind), "v": [1, 1, 1]}), tmp_path / "a.parquet"
        )
        found = FragmentReader(config_of(tmp_path), "tickets").deliveries(list_inputs([str(tmp_path)]).fragments[0])
        assert [delivery.error for delivery in found] == [None, "invalid_row", None]


def topic(**changes: Any) -> TopicConfig:
    tree = {"key": "id", "text": "{title} {body?}", "version": "v", "tasks": ["one"]} | changes
    return TopicConfig.model_validate(tree)


GOOD = {"id": pa.string(), "title": pa.large_string(), "v": pa.int64()}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (GOOD, None),
        (GOOD | {"v": pa.timestamp("us", "UTC")}, None),
        (GOOD | {"title": pa.dictionary(pa.int32(), pa.string())}, None),
        ({"id": pa.string(), "titel": pa.string(), "v": pa.int64()}, "no column 'title'.*Did you mean 'titel'"),
        (GOOD | {"title": pa.int64()}, "'title' holds int64"),
        (GOOD | {"id": pa.int64()}, r"'id' holds int64, which `key` \(string\)"),
        (GOOD | {"v": pa.float64()}, "'v' holds double"),
        (GOOD | {"v": pa.timestamp("us")}, "'v' holds timestamp"),
        (GOOD | {"title": pa.list_(pa.string())}, "'title' holds list"),
    ],
)
def test_columns_that_make_no_record_are_refused_before_anything_is_written(
    columns: dict[str, Any], message: str | None
) -> None:
    if message is None:
        check_schema("a.parquet", list(columns.items()), needs_of(topic()), [])
        return
    with pytest.raises(ConfigError, match=message):
        check_schema("a.parquet", list(columns.items()), needs_of(topic()), [])


def test_a_column_named_twice_and_a_folder_in_its_place() -> None:
    twice: list[Column] = [*GOOD.items(), ("id", pa.string())]
    with pytest.raises(ConfigError, match="two columns are called 'id'"):
        check_schema("a.parquet", twice, needs_of(topic()), [])
    without: list[Column] = [("title", pa.string()), ("v", pa.int64())]
    check_schema("a.parquet", without, needs_of(topic()), ["id"])


def test_a_file_replaced_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows: dict[str, list[Any]] = {
        "id": [str(number) for number in range(3_000)],
        "title": ["t"] * 3_000,
        "v": [1] * 3_000,
    }
    pq.write_table(pa.table(rows), path)
    [fragment] = list_inputs([str(path)]).fragments
    batches = FragmentReader(config_of(tmp_path), "tickets").batches(fragment)
    next(batches)
    pq.write_table(pa.table({name: values[:5] for name, values in rows.items()}), path)
    with pytest.raises(FragmentFault, match="replaced while it was read"):
        list(batches)


def test_a_file_cut_short_is_told_from_the_row_on(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "title": ["t"], "v": [1]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    [fragment] = list_inputs([str(path)]).fragments
    with pytest.raises(FragmentFault, match=r"a.parquet#0: cannot be read"):
        FragmentReader(config_of(tmp_path), "tickets").deliveries(fragment)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("start", [0, 1, 511, 512, 700, 1_000])
def test_reading_may_begin_at_any_row(name: str, start: int, tmp_path: Path) -> None:
    path = tmp_path / name
    rows = [{"id": str(number), "title": "t", "v": number} for number in range(1_000)]
    writers: dict[str, Callable[[], object]] = {
        "a.parquet": lambda: pq.write_table(pa.Table.from_pylist(rows), path),
        "a.jsonl": lambda: path.write_bytes(b"\n".join(map(orjson.dumps, rows))),
        "a.csv": lambda: path.write_text("id,title,v\n" + "".join(f"{row['id']},t,{row['v']}\n" for row in rows)),
    }
    writers[name]()
    [fragment] = list_inputs([str(path)]).fragments
    found: list[Delivery] = [
        delivery
        for batch in FragmentReader(config_of(tmp_path), "tickets").batches(fragment, start)
        for delivery in batch
    ]
    assert [delivery.record.version for delivery in found if delivery.record] == list(range(start, 1_000))
    assert [delivery.position.offset for delivery in found] == list(range(start, 1_000))
