"""The point that each commit carries: an offset stands only as long as the store still holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from kafka import OffsetAndMetadata

from pipeline.errors import EnvironmentFault, Reason, TransientError
from pipeline.live.witness import confirm, witness_tags
from pipeline.records.record import Partition, Witness, collection_tag, point_id
from pipeline.sources.group.positions import Mark, load_witness, without_witness
from tests.fakes import FakeStore, record, task
from tests.unit.fake_consumer import PLACE, FakeConsumer, Group, assign, lose, messages, revoke
from tests.unit.test_refractor import Bench

URGENCY, ISSUE = task("urgency"), task("issue")
TASKS = {"tickets": [URGENCY, ISSUE]}
P0, P1 = Partition("tickets", 0), Partition("tickets", 1)
MARK = Mark("id-1", 4, 4, 0)
WITNESS = Witness(bytes(range(16)), 7, frozenset({"0a1b2c3d", "ffffffff"}))


def stored(**versions: int) -> FakeStore:
    """A store whose collections of both tasks hold the keys in these versions."""
    store = FakeStore()
    for used in (URGENCY, ISSUE):
        store.points[used.collection] = {
            point_id("support", "tickets", f"s:{key}"): (version, False, None) for key, version in versions.items()
        }
    return store


def witness(key: str, version: int) -> Witness:
    return Witness(point_id("support", "tickets", f"s:{key}"), version, witness_tags(TASKS["tickets"]))


def check(store: FakeStore, witnesses: Mapping[Partition, Witness]) -> None:
    confirm(store, TASKS, "g", witnesses.items())


def test_a_store_that_holds_what_was_committed_or_newer_is_read_on() -> None:
    check(stored(a=7, b=9), {P0: witness("a", 7), P1: witness("b", 8)})


@pytest.mark.parametrize("found", [{}, {"a": 6}, {"b": 7}])
def test_a_point_that_is_gone_or_older_is_refused_by_name(found: dict[str, int]) -> None:
    with pytest.raises(EnvironmentFault, match=rf"{URGENCY.collection}.* of tickets\[1\]: .*refract rewind"):
        check(stored(**found), {P1: witness("a", 7)})


def test_one_collection_of_several_is_enough() -> None:
    store = stored(a=7)
    del store.points[ISSUE.collection]
    with pytest.raises(EnvironmentFault, match=ISSUE.collection):
        check(store, {P0: witness("a", 7)})


def test_a_task_that_is_new_since_the_commit_is_not_asked_for_it() -> None:
    store = stored(a=7)
    del store.points[ISSUE.collection]
    before = Witness(point_id("support", "tickets", "s:a"), 7, frozenset({collection_tag(URGENCY.collection)}))
    check(store, {P0: before})


def test_a_batch_names_its_last_stored_record_and_no_dead_letter() -> None:
    bench = Bench()
    bench.embedder.nan_texts = {"poison"}
    bench.process(record("a", 7, "x"), record("b", 1, "y"), record("b", 5, "poison"), Reason.INVALID_JSON)
    ((place, found),) = bench.tracker.advance().witnesses
    assert (found.id, found.version) == (point_id("support", "tickets", "s:b"), 1)
    check(bench.store, {place: found})


def test_a_batch_of_letters_keeps_the_witness_before_it() -> None:
    bench = Bench()
    bench.process(record("a", 7, "x"))
    before = bench.tracker.advance().witnesses
    bench.process(Reason.INVALID_JSON)
    assert bench.tracker.advance().witnesses == before != set()


def test_a_witness_survives_being_written_beside_the_mark_and_a_rewind_forgets_it() -> None:
    text = MARK.dump(WITNESS)
    assert (Mark.load(text), load_witness(text)) == (MARK, WITNESS)
    assert load_witness(MARK.dump()) is None
    assert without_witness(text) == MARK.dump()
    for foreign in (None, "", "consumer-1", "[]", '{"held":1}', '{"held":["zz",1,[]]}', '{"held":["00",[],1]}'):
        assert load_witness(foreign) is None
    assert without_witness("consumer-1") == "consumer-1"


def test_a_hundred_tasks_fit_into_what_brokers_take() -> None:
    many = Witness(bytes(16), 2**53 - 1, frozenset(f"{number:08x}" for number in range(100)))
    assert len(Mark("0" * 36, 10**6, 10**6, 8190).dump(many)) < 4_096


def test_commits_carry_the_witness_and_the_next_owner_asks_for_it() -> None:
    group = Group([assign, messages(0, 1), revoke, assign])
    group.poll(2, durable=False)
    place = Partition(*PLACE)
    group.tracker.finish([], {place: WITNESS})
    group.commit()
    assert load_witness(group.committed[PLACE].metadata) == WITNESS
    assert group.asked == []
    group.poll(3, durable=False)
    assert group.asked == [{(place, WITNESS)}]
    group.tracker.finish([group.tracker.add(place, 2)])
    assert group.tracker.advance().witnesses == {(place, WITNESS)}  # carried on until something newer is stored


def test_the_last_commit_of_a_revoked_partition_carries_it_too() -> None:
    def store(_consumer: FakeConsumer) -> None:
        group.tracker.finish([], {Partition(*PLACE): WITNESS})
        group.secure()

    group = Group([assign, messages(0), store, revoke])
    group.poll(5, durable=False)
    assert group.offset == 1
    assert load_witness(group.committed[PLACE].metadata) == WITNESS


def committed_with_witness(script: Sequence[Any] = (assign, messages(4))) -> Group:
    group = Group(list(script))
    group.committed[PLACE] = OffsetAndMetadata(4, Mark("id-1", 1, 1, 0).dump(WITNESS), -1)
    return group


def test_a_partition_whose_witness_is_gone_is_not_read_and_nothing_is_committed() -> None:
    group = committed_with_witness()
    group.store_says.append(EnvironmentFault("gone"))
    before = dict(group.committed)
    with pytest.raises(EnvironmentFault, match="gone"):
        group.poll(3, durable=False)
    group.commit()
    group.source.close()
    assert group.committed == before


def test_a_revoked_partition_is_committed_as_far_as_it_is_durable_with_the_witness_of_then() -> None:
    """A newer one may have been stored after the store was set back."""
    place, newer = Partition(*PLACE), replace(WITNESS, id=bytes(16))

    def store(_consumer: FakeConsumer) -> None:
        group.tracker.finish([], {place: newer})

    group = Group([assign, messages(0), messages(1), store, revoke])
    group.poll(2, durable=False)
    group.tracker.finish([], {place: WITNESS})
    group.secure()
    group.poll(3, durable=False)
    assert group.offset == 1
    assert load_witness(group.committed[PLACE].metadata) == WITNESS


def test_a_store_that_is_away_is_asked_again() -> None:
    group = committed_with_witness()
    group.store_says.append(TransientError("away"))
    group.poll(durable=False)
    with pytest.raises(TransientError):
        group.poll(durable=False)
    assert group.poll(2, durable=False) == [4]
    assert len(group.asked) == 2


def test_a_lost_partition_takes_its_witness_with_it() -> None:
    group = Group([assign, messages(0), lose])
    group.poll(2, durable=False)
    group.tracker.finish([], {Partition(*PLACE): WITNESS})
    group.poll(durable=False)
    group.tracker.finish([], {Partition(*PLACE): WITNESS})
    assert not group.tracker.advance()
