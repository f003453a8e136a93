"""The watermark: first leg of the promise."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from pipeline.errors import OwnershipError
from pipeline.live.offsets import OffsetTracker, Watermark, Watermarks
from pipeline.records.record import Partition, Receipt, Witness

P0 = Partition("tickets", 0)
P1 = Partition("tickets", 1)


def tracker_with(*offsets: int) -> tuple[OffsetTracker, list[Receipt]]:
    tracker = OffsetTracker()
    tracker.assign(P0)
    return tracker, [tracker.add(P0, offset) for offset in offsets]


def test_offset_is_not_committed_while_an_earlier_one_is_unfinished() -> None:
    tracker, (first, second, third) = tracker_with(0, 1, 2)
    tracker.finish([second, third])
    assert tracker.advance().offsets == {}
    tracker.finish([first])
    assert tracker.advance().offsets == {P0: 3}


def test_watermark_is_the_next_offset_of_what_was_delivered_across_gaps() -> None:
    """Compaction and aborted transactions leave gaps, which need no counting."""
    tracker, receipts = tracker_with(5, 9, 20)
    tracker.finish(receipts[:2])
    assert tracker.advance().offsets == {P0: 10}
    tracker.finish(receipts[2:])
    assert tracker.advance().offsets == {P0: 21}


def test_watermark_that_was_committed_is_not_offered_again() -> None:
    tracker, receipts = tracker_with(0)
    tracker.finish(receipts)
    tracker.secure(tracker.advance())
    tracker.committed({P0: 1})
    assert tracker.durable() == {}
    assert not tracker.advance()


def test_watermark_is_offered_again_until_it_is_secured_and_then_until_its_commit_is_noted() -> None:
    tracker, receipts = tracker_with(0)
    tracker.finish(receipts)
    assert tracker.advance().offsets == tracker.advance().offsets == {P0: 1}
    tracker.secure(tracker.advance())
    assert tracker.durable() == tracker.durable() == {P0: Watermark(1)}


def test_what_finishes_while_the_store_is_flushed_is_not_durable() -> None:
    tracker, (first, second) = tracker_with(0, 1)
    tracker.finish([first])
    taken = tracker.advance()
    assert tracker.durable() == {}
    tracker.finish([second])
    tracker.secure(taken)
    assert tracker.durable() == {P0: Watermark(1)}
    assert tracker.advance().offsets == {P0: 2}


def test_partition_that_went_and_came_back_while_the_store_was_flushed_has_nothing_durable() -> None:
    tracker, receipts = tracker_with(0)
    tracker.finish(receipts)
    taken = tracker.advance()
    tracker.lose([P0])
    tracker.assign(P0, 0)
    tracker.secure(taken)
    assert tracker.durable() == {}


def test_watermark_keeps_the_witness_it_was_taken_with_and_asks_for_the_one_before() -> None:
    start, taken, newer = (Witness(bytes([number] * 16), number, frozenset()) for number in range(3))
    tracker = OffsetTracker()
    tracker.assign(P0, 0, start)
    tracker.finish([tracker.add(P0, 0)], {P0: taken})
    watermarks = tracker.advance()
    assert watermarks.witnesses == {(P0, start), (P0, taken)}
    tracker.finish([], {P0: newer, P1: newer})
    tracker.secure(watermarks)
    assert tracker.durable() == {P0: Watermark(1, taken)}
    assert tracker.revoke([P0]) == {P0: Watermark(1, taken)}


def test_committed_start_position_is_not_committed_again() -> None:
    tracker = OffsetTracker()
    tracker.assign(P0, 7)
    assert tracker.advance().offsets == {}


def test_revoke_returns_what_is_durable_and_ignores_what_finishes_later() -> None:
    tracker, (first, second, third) = tracker_with(0, 1, 2)
    tracker.finish([first])
    tracker.secure(tracker.advance())
    tracker.finish([second])
    assert tracker.revoke([P0]) == {P0: Watermark(1)}
    tracker.finish([third])
    assert not tracker.advance()
    assert tracker.held() == frozenset()


def test_late_finish_of_an_earlier_assignment_does_not_move_the_next_one() -> None:
    """The partition went away and came back while a batch was in flight; its offsets are read again."""
    tracker, (late,) = tracker_with(0)
    tracker.revoke([P0])
    tracker.assign(P0, 0)
    again = tracker.add(P0, 0)
    tracker.finish([late])
    assert tracker.advance().offsets == {}
    assert not tracker.is_current(late)
    assert tracker.is_current(again)
    tracker.finish([again])
    assert tracker.advance().offsets == {P0: 1}


def test_lost_partition_has_nothing_to_commit() -> None:
    tracker, receipts = tracker_with(0)
    tracker.finish(receipts)
    tracker.lose([P0])
    assert tracker.advance().offsets == {}
    assert tracker.revoke([P0]) == {}


def test_commit_of_a_lost_partition_is_ignored() -> None:
    tracker, receipts = tracker_with(0)
    tracker.finish(receipts)
    tracker.secure(tracker.advance())
    tracker.lose([P0])
    tracker.committed({P0: 1})
    assert tracker.held() == frozenset()


def test_partitions_do_not_wait_for_each_other() -> None:
    tracker, (slow,) = tracker_with(0)
    tracker.assign(P1)
    tracker.finish([tracker.add(P1, 4)])
    assert tracker.advance().offsets == {P1: 5}
    tracker.finish([slow])
    assert tracker.advance().offsets == {P0: 1, P1: 5}


def test_records_of_a_partition_that_is_not_held_are_refused() -> None:
    with pytest.raises(OwnershipError, match=r"tickets\[0\]"):
        OffsetTracker().add(P0, 0)


def test_age_is_that_of_the_oldest_unfinished_offset() -> None:
    now = 100.0
    tracker = OffsetTracker(lambda: now)
    tracker.assign(P0)
    first = tracker.add(P0, 0)
    now = 104.0
    tracker.add(P0, 1)
    now = 110.0
    assert tracker.watermark_age_s() == 10.0
    tracker.finish([first])
    assert tracker.watermark_age_s() == 6.0
    assert tracker.unfinished() == {P0: 1}
    tracker.lose([P0])
    assert tracker.watermark_age_s() == 0.0
    assert tracker.unfinished() == {}


class TrackerAgainstModel(RuleBasedStateMachine):
    """Random deliveries, finishes and rebalances, against a model that recomputes everything from scratch."""

    receipts: Bundle[Receipt] = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.delivered: dict[Partition, list[tuple[int, Receipt]]] = {}
        self.finished: set[int] = set()
        self.next_offset = 0
        self.durable: dict[Partition, int] = {}
        self.taken: tuple[Watermarks, dict[Partition, int]] | None = None

    @rule(partition=st.sampled_from([P0, P1]))
    def assign(self, partition: Partition) -> None:
        self.tracker.assign(partition)
        self.delivered[partition] = []
        self.end(partition)

    @rule()
    def take(self) -> None:
        self.taken = (self.tracker.advance(), self.expected())

    @precondition(lambda self: self.taken)
    @rule()
    def secure(self) -> None:
        assert self.taken is not None
        self.tracker.secure(self.taken[0])
        self.durable |= self.taken[1]
        self.taken = None

    def end(self, partition: Partition) -> None:
        """What was taken of a partition that goes is void."""
        self.durable.pop(partition, None)
        if self.taken is not None:
            self.taken[1].pop(partition, None)

    @precondition(lambda self: self.delivered)
    @rule(target=receipts, gap=st.integers(0, 3), count=st.integers(1, 4), data=st.data())
    def deliver(self, gap: int, count: int, data: st.DataObject) -> MultipleResults[Receipt]:
        partition = data.draw(st.sampled_from(sorted(self.delivered)))
        self.next_offset += gap
        added = []
        for _ in range(count):
            receipt = self.tracker.add(partition, self.next_offset)
            self.delivered[partition].append((self.next_offset, receipt))
            self.next_offset += 1
            added.append(receipt)
        return multiple(*added)

    @rule(receipt=consumes(receipts))
    def finish(self, receipt: Receipt) -> None:
        self.tracker.finish([receipt])
        self.finished.add(id(receipt))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.delivered)))
        durable = self.durable.get(partition)
        assert self.tracker.revoke([partition]) == ({} if durable is None else {partition: Watermark(durable)})
        del self.delivered[partition]
        self.end(partition)

    @invariant()
    def watermarks_are_contiguous(self) -> None:
        moved = {key: offset for key, offset in self.expected().items() if offset != self.durable.get(key)}
        assert self.tracker.advance().offsets == moved

    @invariant()
    def only_what_was_secured_may_be_committed(self) -> None:
        assert self.tracker.durable() == {key: Watermark(offset) for key, offset in self.durable.items()}

    def expected(self) -> dict[Partition, int]:
        found = {}
        for partition, delivered in self.delivered.items():
            contiguous = []
            for offset, receipt in delivered:
                if id(receipt) not in self.finished:
                    break
                contiguous.append(offset + 1)
            if contiguous:
                found[partition] = contiguous[-1]
        return found


TestTrackerAgainstModel = TrackerAgainstModel.TestCase
TestTrackerAgainstModel.settings = settings(max_examples=100, stateful_step_count=40)


def test_what_lies_between_the_last_record_and_the_position_is_passed_over_once_all_is_finished() -> None:
    tracker = OffsetTracker()
    tracker.assign(P0, 5)
    receipt = tracker.add(P0, 5)
    tracker.pass_over({P0: 9, P1: 9})
    assert tracker.advance().offsets == {}
    tracker.finish([receipt])
    tracker.pass_over({P0: 9, P1: 9})
    assert tracker.advance().offsets == {P0: 9}
    tracker.pass_over({P0: 7})
    assert tracker.advance().offsets == {P0: 9}
