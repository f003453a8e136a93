"""The contract of `pipeline.interfaces.Store`: collections, aliases, fingerprints, opening and closing."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.binding import Task
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.stores.open import open_store
from tests.contract.store_backends import (
    DIMENSION,
    PIPELINE,
    AnyStore,
    Backend,
    EdgeBackend,
    QdrantBackend,
    key_id,
    make_batch,
    make_task,
    put,
    stored,
    unit,
)


def other_model(task: Task) -> Task:
    """Returns the task as it is after its instruction was changed."""
    return make_task(task.name, seed="changed")


def test_opening_twice_changes_nothing(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 1)], task))
    store.open([task])
    assert stored(store, task) == {key_id("k"): (1, False)}


def test_what_was_written_is_there_after_closing_and_opening_again(store_backend: Backend, task: Task) -> None:
    store = store_backend.connect()
    store.open([task])
    store.upsert(make_batch([put(key, 1) for key in range(300)], task))
    store.flush()
    store.close()
    again = store_backend.connect()
    again.open([task])
    assert len(stored(again, task)) == 300
    assert len(again.search(task, unit(1.0), 10, ())) == 10


def test_closing_twice_is_harmless_and_a_closed_store_says_so(store: AnyStore, task: Task) -> None:
    store.close()
    store.close()
    with pytest.raises((EnvironmentFault, ValueError), match=r"(?i)closed"):
        store.upsert(make_batch([put("k", 1)], task))


def test_two_tasks_have_collections_of_their_own(store_backend: Backend) -> None:
    store, first, second = store_backend.connect(), store_backend.task("one"), store_backend.task("two")
    store.open([first, second])
    store.upsert(make_batch([put("k", 1)], first))
    assert store.count(first.collection) == 1
    assert store.count(second.collection) == 0


def test_check_names_the_store_and_its_version(store: AnyStore) -> None:
    assert store.check().startswith("Qdrant")


def test_another_fingerprint_gets_another_collection_and_searches_are_refused(store: AnyStore, task: Task) -> None:
    store.upsert(make_batch([put("k", 1)], task))
    changed = other_model(task)
    store.open([changed])
    store.upsert(make_batch([put("l", 1)], changed))
    assert stored(store, changed) == {key_id("l"): (1, False)}
    with pytest.raises(EnvironmentFault, match="finish the migration and move the alias"):
        store.search(changed, unit(1.0), 5, ())
    assert [hit.id for hit in store.search(task, unit(1.0), 5, ())] == [key_id("k")]


def test_inspecting_tells_what_a_task_would_find_and_creates_nothing(store_backend: Backend, task: Task) -> None:
    store, changed = store_backend.connect(), other_model(task)
    assert str(store.inspect([task])[task.name]) == "new"
    with pytest.raises(EnvironmentFault):
        store.count(task.collection)
    store.open([task])
    assert str(store.inspect([task])[task.name]) == "exists"
    [state] = store.inspect([changed]).values()
    assert (state.exists, state.alias, state.elsewhere) == (False, task.alias, task.collection)
    assert str(state) == f"new, but alias {task.alias!r} leads to {task.collection!r}"
    twin = replace(task, fingerprint=task.fingerprint[:-1] + "x")
    with pytest.raises(EnvironmentFault, match="fingerprint"):
        store.inspect([twin])


def test_moving_the_alias_turns_the_readers_over(store: AnyStore, task: Task) -> None:
    changed = other_model(task)
    store.upsert(make_batch([put("k", 1)], task))
    store.open([changed])
    store.upsert(make_batch([put("l", 1)], changed))
    store.move_alias(changed)
    assert [hit.id for hit in store.search(changed, unit(1.0), 5, ())] == [key_id("l")]
    with pytest.raises(EnvironmentFault, match="migration"):
        store.search(task, unit(1.0), 5, ())


def test_an_alias_cannot_be_moved_to_a_collection_that_does_not_exist(store: AnyStore, task: Task) -> None:
    with pytest.raises(EnvironmentFault, match="does not exist"):
        store.move_alias(other_model(task))
    assert store.search(task, unit(1.0), 5, ()) == []


def test_searching_a_task_that_was_never_opened_is_refused(store_backend: Backend, store: AnyStore) -> None:
    with pytest.raises(EnvironmentFault, match=r"alias .* is unset"):
        store.search(store_backend.task("never"), unit(1.0), 5, ())


def test_a_collection_of_another_pipeline_is_refused(store_backend: Backend, task: Task) -> None:
    store_backend.connect("first").open([task])
    with pytest.raises(EnvironmentFault, match=r"pipeline 'first'.*needs 'second'"):
        store_backend.connect("second").open([task])


def test_a_collection_whose_fingerprint_differs_behind_the_same_name_is_refused(
    store_backend: Backend, task: Task
) -> None:
    # The name holds 40 bits of the fingerprint; the metadata holds all of it.
    twin = replace(task, fingerprint=task.fingerprint[:-1] + "x")
    assert twin.collection == task.collection
    store = store_backend.connect()
    store.open([task])
    with pytest.raises(EnvironmentFault, match=f"fingerprint '{task.fingerprint}'.*needs '{twin.fingerprint}'"):
        store.open([twin])
    with pytest.raises(EnvironmentFault, match="migration"):
        store.search(twin, unit(1.0), 5, ())


def test_a_collection_of_another_dimension_is_refused(store_backend: Backend, task: Task) -> None:
    wide = replace(task, dimension=DIMENSION * 2)
    store = store_backend.connect()
    store.open([task])
    with pytest.raises(EnvironmentFault, match=rf"dimension {DIMENSION}.*needs {DIMENSION * 2}"):
        store.open([wide])


def test_two_tasks_may_share_an_alias_name_only_with_one_fingerprint(store_backend: Backend, task: Task) -> None:
    renamed = make_task("renamed", seed="x", collection=task.alias)
    store = store_backend.connect()
    store.open([task, renamed])
    with pytest.raises(EnvironmentFault, match="migration"):
        store.search(renamed, unit(1.0), 5, ())


def test_the_configuration_decides_which_store_is_opened(
    edge_backend: EdgeBackend, qdrant_backend: QdrantBackend
) -> None:
    edge = open_store(edge_backend.config, PIPELINE)
    assert edge.check().startswith("Qdrant Edge")
    edge.close()
    server = open_store(qdrant_backend.config, PIPELINE)
    assert server.check() == "Qdrant 1.19.0"
    server.close()


def test_a_missing_edge_package_is_named_with_the_command_that_installs_it(
    edge_backend: EdgeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys  # noqa: PLC0415 - what is patched

    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    for name in ("edge", "edge_shard"):
        monkeypatch.delitem(sys.modules, f"pipeline.stores.{name}", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'refract\[edge\]'"):
        open_store(edge_backend.config, PIPELINE)
    assert not Path(edge_backend.config.path).exists()
