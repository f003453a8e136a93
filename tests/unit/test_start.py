"""Where a partition starts, and when its offsets are refused."""

from typing import Any

import pytest

from pipeline.config.source import TopicConfig
from pipeline.errors import EnvironmentFault
from pipeline.records.record import Partition
from pipeline.sources.group.positions import Committed, History, Mark, Topic, begin, resume

ONE, OTHER = "id-1", "id-2"


def config(**changes: Any) -> TopicConfig:
    return TopicConfig.model_validate({"key": "id", "text": "{t}", "tasks": ["a"], **changes})


OFFSETS, VERSIONED = config(), config(version="v")
LAST = Partition("t", 3)


def mark(topic_id: str = ONE, count: int = 4, first: int = 4, generation: int = 0) -> Mark:
    return Mark(topic_id, count, first, generation)


def test_a_mark_survives_being_written_and_other_metadata_is_no_mark() -> None:
    assert Mark.load(mark(first=2, generation=7).dump()) == mark(first=2, generation=7)
    for foreign in (None, "", "consumer-1", "{}", "[]", '{"id":1}', '{"id":"x","n":"many","first":1,"gen":0}', 7):
        assert Mark.load(foreign) is None


def test_a_mark_fits_into_what_brokers_take() -> None:
    assert len(mark("0" * 36, 10**6, 10**6, 8190).dump()) < 200


def test_an_unchanged_topic_resumes_at_its_commit() -> None:
    for topic in (OFFSETS, VERSIONED):
        start = resume(LAST, topic, Committed(17, mark()), Topic(ONE, 4))
        assert (start.offset, start.is_first, start.mark) == (17, False, mark())


def test_a_commit_without_a_mark_is_taken_over() -> None:
    start = resume(LAST, OFFSETS, Committed(17, None), Topic(ONE, 4))
    assert (start.offset, start.mark) == (17, mark())


def test_a_broker_that_tells_no_ids_is_no_recreation() -> None:
    assert resume(LAST, OFFSETS, Committed(17, mark()), Topic("", 4)).mark.topic_id == ONE
    assert resume(LAST, OFFSETS, Committed(17, mark("")), Topic(ONE, 4)).mark.topic_id == ONE


@pytest.mark.parametrize(
    ("topic", "found"),
    [(Topic(OTHER, 4), "generation to 1"), (Topic(ONE, 5), "has 5 partitions instead of 4")],
)
def test_offset_versions_refuse_another_topic_and_another_count(topic: Topic, found: str) -> None:
    with pytest.raises(EnvironmentFault, match=found):
        resume(LAST, OFFSETS, Committed(17, mark()), topic)
    with pytest.raises(EnvironmentFault, match=found):
        begin(LAST, OFFSETS, "earliest", History([Committed(17, mark())], None), topic)
    with pytest.raises(EnvironmentFault, match=found):
        begin(LAST, OFFSETS, "earliest", History([], mark()), topic)


def test_a_raised_generation_accepts_both_and_a_lowered_one_nothing() -> None:
    raised = config(generation=1)
    assert resume(LAST, raised, Committed(17, mark()), Topic(ONE, 5)).offset == 17
    recreated = resume(LAST, raised, Committed(17, mark()), Topic(OTHER, 5))
    assert (recreated.offset, recreated.at_end, recreated.is_first) == (None, False, True)
    assert recreated.mark == Mark(OTHER, 5, 5, 1)
    with pytest.raises(EnvironmentFault, match="set it back to 1"):
        resume(LAST, OFFSETS, Committed(17, mark(generation=1)), Topic(ONE, 4))


def test_a_recreated_topic_with_versions_starts_at_its_beginning() -> None:
    start = resume(LAST, VERSIONED, Committed(17, mark()), Topic(OTHER, 2))
    assert (start.offset, start.at_end, start.mark) == (None, False, Mark(OTHER, 2, 2, 0))


@pytest.mark.parametrize(("start_from", "at_end"), [("earliest", False), ("latest", True)])
def test_a_first_start_is_where_the_configuration_says(start_from: str, *, at_end: bool) -> None:
    start = begin(LAST, OFFSETS, start_from, History([], None), Topic(ONE, 4))
    assert (start.offset, start.at_end, start.is_first, start.mark) == (None, at_end, True, mark())
    # Another member was a little faster: the group is still at its first start.
    assert begin(LAST, OFFSETS, start_from, History([Committed(5, mark())], mark()), Topic(ONE, 4)).at_end is at_end


def test_partitions_added_later_start_at_their_beginning_even_after_the_others_have_new_marks() -> None:
    added = Partition("t", 4)
    siblings = [Committed(5, mark(count=5, first=4)), Committed(9, mark(count=5, first=4))]
    start = begin(added, VERSIONED, "latest", History(siblings, mark(count=5, first=4)), Topic(ONE, 5))
    assert (start.at_end, start.mark) == (False, mark(count=5, first=4))
    still_first = begin(LAST, VERSIONED, "latest", History(siblings, None), Topic(ONE, 5))
    assert still_first.at_end


def test_a_topic_known_before_and_created_again_starts_at_its_beginning() -> None:
    assert not begin(LAST, VERSIONED, "latest", History([], mark(OTHER)), Topic(ONE, 4)).at_end
    assert not begin(LAST, VERSIONED, "latest", History([Committed(5, None)], None), Topic(ONE, 4)).at_end
