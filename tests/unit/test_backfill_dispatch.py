"""Which carrier gets which work, and what becomes of work that comes back without being through. No Ray, no process."""

import pytest

from pipeline.backfill.carrier import WorkInterruptedError
from pipeline.backfill.dispatch import MAX_ATTEMPTS, WORKS_PER_CARRIER, Dispatch
from pipeline.backfill.executor import RunState
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.rows import FragmentFault
from pipeline.backfill.work import Work
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.records.files.listing import FilePart


class Heard:
    """What a run tells."""

    def __init__(self) -> None:
        self.noted_: list[tuple[str, int, int, bool]] = []
        """Name, start, next row, done."""
        self.rows: list[int] = []
        self.failures: list[str] = []

    def doing(self, what: str) -> None:
        raise AssertionError(what)

    def noted(self, work: Work, outcome: Outcome, *, done: bool) -> None:
        self.noted_.append((work.name, work.start, outcome.next_row, done))
        self.rows.append(outcome.counts.rows)

    def failed(self, work: Work, why: str) -> None:
        self.failures.append(f"{work.name}: {why}")

    def progress(self, state: RunState) -> None:
        raise AssertionError(state)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def works(count: int) -> list[Work]:
    return [Work(FilePart("a.parquet", size=100, mtime_ns=0, part=part), ["one"], 0) for part in range(count)]


def outcome(next_row: int, rows: int = 0) -> Outcome:
    return Outcome(Counts(rows=rows), next_row, [])


def dispatch_of(count: int, num_carriers: int, heard: Heard) -> Dispatch:
    dispatch = Dispatch(works(count), num_carriers, heard)
    for number in range(dispatch.num_carriers):
        dispatch.carrier_up(number)
    return dispatch


def test_carriers_that_are_up_get_the_works_in_order_and_never_too_many(heard: Heard) -> None:
    some = works(2 * WORKS_PER_CARRIER + 1)
    dispatch = Dispatch(some, 3, heard)
    assert dispatch.hand_out() == []
    dispatch.carrier_up(1)
    assert dispatch.hand_out() == [(1, work) for work in some[:WORKS_PER_CARRIER]]
    assert dispatch.hand_out() == []
    dispatch.carrier_up(0)
    assert dispatch.hand_out() == [(0, work) for work in some[WORKS_PER_CARRIER : 2 * WORKS_PER_CARRIER]]
    dispatch.finished(some[0], outcome(5, rows=5))
    assert dispatch.hand_out() == [(1, some[-1])]
    for work in some[1:]:
        assert not dispatch.is_over
        dispatch.finished(work, outcome(5, rows=5))
    assert dispatch.is_over
    assert heard.noted_ == [(work.name, 0, 5, True) for work in some]
    assert dispatch.counts([]).rows == 5 * len(some)


def test_there_are_no_more_carriers_than_works(heard: Heard) -> None:
    assert Dispatch(works(2), 5, heard).num_carriers == 2
    assert Dispatch([], 5, heard).is_over


def test_counts_are_those_finished_and_those_under_way(heard: Heard) -> None:
    dispatch = dispatch_of(2, 1, heard)
    (_, first), _ = dispatch.hand_out()
    dispatch.finished(first, outcome(5, rows=5))
    assert dispatch.counts([Counts(rows=3, written=2), Counts(rows=1)]) == Counts(rows=9, written=2)


def test_what_was_not_flushed_is_carried_again_and_not_for_ever(heard: Heard) -> None:
    dispatch = dispatch_of(1, 1, heard)
    for _ in range(MAX_ATTEMPTS):
        ((_, work),) = dispatch.hand_out()
        assert heard.failures == []
        dispatch.returned(work, WorkInterruptedError("the store died"))
    assert dispatch.is_over
    assert heard.failures == [f"a.parquet#0: the store died, {MAX_ATTEMPTS} times"]


def test_a_fragment_at_fault_fails_alone_and_anything_else_ends_the_run(heard: Heard) -> None:
    dispatch = dispatch_of(2, 1, heard)
    (_, first), (_, second) = dispatch.hand_out()
    dispatch.returned(first, FragmentFault("cut short"))
    assert heard.failures == ["a.parquet#0: cut short"]
    for error in (EnvironmentFault("another dimension"), TransientError("no server there")):
        with pytest.raises(type(error)):
            dispatch.returned(second, error)
    assert len(heard.failures) == 1
    assert not dispatch.is_over


def test_work_that_comes_back_begins_at_its_checkpoint_and_its_counts_are_kept(heard: Heard) -> None:
    dispatch = dispatch_of(1, 1, heard)
    ((_, work),) = dispatch.hand_out()
    dispatch.reached({work.name: outcome(40, rows=45), "b.parquet#0": outcome(1)})
    dispatch.reached({work.name: outcome(0)})  # older than where it began: nothing new
    dispatch.returned(work, WorkInterruptedError("the store died"))
    ((_, rest),) = dispatch.hand_out()
    assert (rest.fragment, rest.tasks, rest.start) == (work.fragment, work.tasks, 40)
    dispatch.reached({work.name: outcome(40)})  # late, of the first attempt
    dispatch.finished(rest, outcome(100, rows=60))
    assert heard.noted_ == [(work.name, 0, 40, False), (work.name, 40, 100, True)]
    assert heard.rows[-1] == dispatch.counts([]).rows == 105


def test_what_a_lost_carrier_had_goes_to_those_that_are_up(heard: Heard) -> None:
    dispatch = dispatch_of(4, 2, heard)
    handed = dispatch.hand_out()
    lost = [work for number, work in handed if number == 0]
    kept = [work for number, work in handed if number == 1]
    assert len(lost) == len(kept) == WORKS_PER_CARRIER
    dispatch.carrier_lost(0, "its process died")
    assert dispatch.hand_out() == []  # the other one is busy, and this one is not up yet
    dispatch.finished(kept[0], outcome(5))
    ((number, again),) = dispatch.hand_out()
    assert number == 1
    assert again in lost
    dispatch.carrier_up(0)
    ((number, other),) = dispatch.hand_out()
    assert number == 0
    assert {again.name, other.name} == {work.name for work in lost}
    assert heard.failures == []


def test_work_whose_carriers_die_again_and_again_fails_alone(heard: Heard) -> None:
    dispatch = dispatch_of(2, 1, heard)
    assert len(dispatch.hand_out()) == 2
    for _ in range(MAX_ATTEMPTS - 1):
        dispatch.carrier_lost(0, "its process died")
        dispatch.carrier_up(0)
        assert len(dispatch.hand_out()) == 2
    dispatch.carrier_lost(0, "its process died")
    assert dispatch.is_over
    assert sorted(heard.failures) == [f"a.parquet#{part}: its process died, {MAX_ATTEMPTS} times" for part in (0, 1)]


def test_a_carrier_that_never_starts_ends_the_run(heard: Heard) -> None:
    dispatch = Dispatch(works(1), 1, heard)
    for _ in range(MAX_ATTEMPTS - 1):
        dispatch.carrier_not_started("no memory")
    dispatch.carrier_up(0)  # one did: the count begins again
    for _ in range(MAX_ATTEMPTS - 1):
        dispatch.carrier_not_started("no memory")
    with pytest.raises(RefractError, match="a carrier could not start: no memory"):
        dispatch.carrier_not_started("no memory")
