"""What Arrow's types mean as JSON: every value as decided, alone, sliced and nested; a bad one costs its row."""

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RecordError
from pipeline.records.files.arrow_values import depth_of, values_of
from pipeline.records.files.columns import rows_of
from pipeline.records.files.reading import Reading, Row
from tests.unit.arrow_columns import BAD, COLUMNS, name_of

IDS = [name_of(column) for column, _ in COLUMNS]


def reading(*needed: str, **options: Any) -> Reading:
    return Reading(frozenset(needed), {}, 1_000, 64, **options)


def seen(rows: Sequence[Row], name: str = "x") -> list[Any]:
    return [BAD if row.fields is None else row.fields[name] for row in rows]


@pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=IDS)
def test_a_value_means_what_was_decided_and_a_bad_one_costs_its_row(column: Any, expected: Sequence[Any]) -> None:
    rows = rows_of(pa.record_batch({"x": column}), reading("x"), {}, 1)
    assert seen(rows) == list(expected)
    for number, row in enumerate(rows, start=1):
        assert row.place == f"row {number}"
        if row.error is None:
            assert orjson.loads(orjson.dumps(row.fields)) == row.fields
            assert len(orjson.dumps(row.fields)) <= row.num_bytes
        else:
            assert row.error.detail.startswith("column 'x': ")


@pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=IDS)
def test_slices_and_nesting_change_nothing(column: Any, expected: Sequence[Any]) -> None:
    assert seen(rows_of(pa.record_batch({"x": column}).slice(1), reading("x"), {}, 2)) == list(expected)[1:]
    nested = pa.StructArray.from_arrays([column], ["inner"])
    listed = pa.ListArray.from_arrays(list(range(len(column) + 1)), column)
    for outer, wrap in ((nested, lambda value: {"inner": value}), (listed, lambda value: [value])):
        found = seen(rows_of(pa.record_batch({"x": outer}), reading("x"), {}, 1))
        assert found == [BAD if value is BAD else wrap(value) for value in expected]


def test_a_bad_value_in_a_column_that_nobody_needs_is_null() -> None:
    batch = pa.record_batch({"id": pa.array(["a", "b"]), "x": pa.array([b"\xff", b"ok"])})
    assert [row.fields for row in rows_of(batch, reading("id", all_columns=True), {}, 1)] == [
        {"id": "a", "x": None},
        {"id": "b", "x": "ok"},
    ]


def test_a_struct_with_two_fields_of_one_name_is_refused_as_json_is() -> None:
    twice = pa.StructArray.from_arrays([pa.array([1, 1]), pa.array([2, 2])], ["a", "a"], mask=pa.array([False, True]))
    found = rows_of(pa.record_batch({"x": twice}), reading("x"), {}, 1)
    assert [row.error and row.error.reason for row in found] == ["duplicate_field", None]


def test_a_type_without_meaning_is_named() -> None:
    with pytest.raises(RecordError, match="month_day_nano_interval has no meaning"):
        values_of(pa.nulls(1, pa.month_day_nano_interval()))


def test_depth_counts_lists_structs_and_maps() -> None:
    kinds = [pa.int64(), pa.list_(pa.int64()), pa.map_(pa.string(), pa.struct({"a": pa.list_view(pa.int8())}))]
    assert [depth_of(kind) for kind in kinds] == [0, 1, 3]
    assert depth_of(pa.dictionary(pa.int8(), pa.list_(pa.string()))) == 1


def test_a_column_that_may_be_too_deep_is_judged_as_json() -> None:
    kind: Any = pa.int64()
    for _ in range(64):
        kind = pa.list_(kind)
    (row,) = rows_of(pa.record_batch({"x": pa.nulls(1, kind)}), reading("x"), {}, 1)
    assert row.num_bytes > 1 << 40


@pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=IDS)
def test_parquet_keeps_the_meaning(column: Any, expected: Sequence[Any], tmp_path: Any) -> None:
    """date64 and small units come back as other types, which mean the same."""
    pq.write_table(pa.table({"x": column}), tmp_path / "a.parquet")
    (batch,) = pq.ParquetFile(tmp_path / "a.parquet").iter_batches()
    assert seen(rows_of(batch, reading("x"), {}, 1)) == list(expected)
