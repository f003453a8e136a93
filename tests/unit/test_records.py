"""Ids, versions and batches of points: the second leg of the promise."""

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.batches import PointBatch
from pipeline.records.record import MAX_VERSION, POINT_NAMESPACE, PointIds, offset_version, point_id


def test_point_id_is_uuid5_of_pipeline_key_space_and_key() -> None:
    assert point_id("support", "tickets", "s:T-1") == uuid.uuid5(POINT_NAMESPACE, "7:support7:tickets5:s:T-1").bytes
    assert uuid.UUID(bytes=point_id("support", "tickets", "s:T-1")).version == 5


def test_the_same_record_always_hits_the_same_point() -> None:
    """Written down, because a changed rule would make every stored point a stranger."""
    assert uuid.UUID(bytes=point_id("support", "tickets", "s:T-1")) == uuid.UUID("08ea09c6-c89f-5ff8-8ac3-17b3b1f25a53")


Parts = tuple[str, str, str]


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_no_two_triples_of_pipeline_key_space_and_key_share_an_id(one: Parts, other: Parts) -> None:
    encodable = all(part.isprintable() for part in (*one, *other))
    if encodable:
        assert (point_id(*one) == point_id(*other)) == (one == other)


def test_key_1_and_key_text_1_are_two_points() -> None:
    assert point_id("support", "tickets", "i:1") != point_id("support", "tickets", "s:1")


def test_two_topics_share_a_point_only_where_they_name_one_key_space() -> None:
    ids = PointIds("support", {"mail": "mail", "chat": "chat", "chat.2026": "chat"})
    assert ids.of("mail", "s:1") != ids.of("chat", "s:1") == ids.of("chat.2026", "s:1")


def test_chunks_of_one_record_are_points_of_their_own() -> None:
    assert len({point_id("support", "tickets", "s:1", chunk) for chunk in (None, 0, 1)}) == 3


def test_a_later_offset_and_a_later_generation_are_newer_and_stay_exact() -> None:
    assert offset_version(0, 5) < offset_version(0, 6) < offset_version(1, 0)
    assert offset_version(8190, 2**40 - 1) <= MAX_VERSION
    assert int(float(offset_version(8190, 2**40 - 1))) == offset_version(8190, 2**40 - 1)


def test_rows_taken_from_a_batch_keep_everything_aligned() -> None:
    batch = PointBatch(
        ids=np.arange(48, dtype=np.uint8).reshape(3, 16),
        versions=np.array([1, 2, 3]),
        deleted=np.array([False, True, False]),
        payloads=[{"n": 1}, {"n": 2}, {"n": 3}],
        vectors={"c": np.arange(6, dtype=np.float32).reshape(3, 2)},
    )
    taken = batch.take(np.array([2, 0]))
    assert len(taken) == 2
    assert taken.versions.tolist() == [3, 1]
    assert taken.payloads == [{"n": 3}, {"n": 1}]
    assert taken.vectors["c"].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert taken.ids[0, 0] == 32
    assert taken.deleted.tolist() == [False, False]
