"""What both stores send, and which of several failures counts."""

import itertools
import uuid

import numpy as np
import pytest

from pipeline.errors import (
    BatchShapeError,
    EnvironmentFault,
    Reason,
    RecordError,
    RefractError,
    TransientError,
    UnknownOutcomeError,
)
from pipeline.records.batches import PointBatch
from pipeline.stores.grpc_errors import most_severe
from pipeline.stores.points import UNVERSIONED, checked, id_bytes, stored_version


def batch_of(*keys_versions: tuple[int, int]) -> PointBatch:
    num = len(keys_versions)
    return PointBatch(
        np.array([[key] * 16 for key, _ in keys_versions], np.uint8),
        np.array([version for _, version in keys_versions], np.int64),
        np.zeros(num, np.bool_),
        [{"row": row} for row in range(num)],
        {"c": np.ones((num, 2), np.float32)},
    )


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(1, 7), (1, 6)], [0]),
        ([(1, 6), (1, 7)], [1]),
        ([(1, 7), (1, 7)], [0]),
        ([(1, 1), (2, 5), (1, 3), (2, 4), (1, 2)], [1, 2]),
        ([(1, 1), (2, 1)], [0, 1]),
    ],
)
def test_a_batch_is_sent_with_the_newest_row_of_each_id(rows: list[tuple[int, int]], kept: list[int]) -> None:
    points = checked(batch_of(*rows))
    assert [payload["row"] for payload in points.payloads] == kept
    assert points.versions.tolist() == [rows[row][1] for row in kept]
    assert points.vectors["c"].shape == (len(kept), 2)


def test_an_empty_batch_is_nothing_to_send() -> None:
    assert len(checked(batch_of())) == 0


def test_rows_and_vectors_that_do_not_match_blame_no_record() -> None:
    batch = batch_of((1, 1))
    wrong = PointBatch(batch.ids, batch.versions, batch.deleted, batch.payloads, {"c": np.ones((2, 2), np.float32)})
    with pytest.raises(EnvironmentFault, match=r"1 points came with vectors of shape \(2, 2\)"):
        checked(wrong)


def test_a_message_about_many_rows_names_the_first_of_them() -> None:
    batch = batch_of(*((key, -1) for key in range(9)))
    with pytest.raises(BatchShapeError, match="at rows 0, 1, 2, 3, 4 and more of 9"):
        checked(batch)


@pytest.mark.parametrize(("value", "version"), [(7, 7), (7.0, 7), (True, -1), ("7", -1), (None, -1), ([7], -1)])
def test_only_a_number_is_a_stored_version(value: object, version: int) -> None:
    assert stored_version({"_version": value}) == version
    assert stored_version({}) == UNVERSIONED


def test_ids_of_every_kind_have_sixteen_bytes() -> None:
    point = uuid.UUID(int=5)
    assert id_bytes(point) == id_bytes(str(point)) == id_bytes(5) == point.bytes


def test_the_graver_failure_is_raised_whatever_the_order() -> None:
    ranking: list[RefractError] = [
        EnvironmentFault("gone"),
        RecordError(Reason.REFUSED_BY_STORE),
        BatchShapeError("too big"),
        UnknownOutcomeError("lost"),
        TransientError("away"),
    ]
    for first, second in itertools.combinations(ranking, 2):
        assert most_severe([first, second]) is first
        assert most_severe([second, first]) is first


def test_of_several_pauses_the_longest_is_kept() -> None:
    pauses = [TransientError("a"), TransientError("b", retry_after_s=2), TransientError("c", retry_after_s=9)]
    assert most_severe(pauses) is pauses[2]
