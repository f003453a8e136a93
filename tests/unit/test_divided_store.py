"""A store whose collections lie with several actors: each gets its own, all at once, and nobody answers for another."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from actors.callers import ActorCaller
from actors.remote import DividedStore
from pipeline.binding import Task
from pipeline.errors import TransientError
from pipeline.interfaces import Written
from pipeline.records.batches import PointBatch
from tests.contract.store_backends import make_batch, make_task, put

TASKS = [make_task(name) for name in ("urgency", "technical_issue", "mood")]


class Owner:
    """An actor; `remote` does at once what an actor does later, and keeps an error for who asks."""

    def __init__(self, log: list[tuple[str, str]], name: str) -> None:
        self._log = log
        self._name = name
        self.opened: list[str] = []
        self.batches: list[PointBatch] = []
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in {"open", "upsert", "flush"}:
            raise AttributeError(name)
        return _Method(getattr(self, f"do_{name}"), self._log, f"{self._name}.{name}")

    def do_open(self, tasks: Iterable[Task]) -> None:
        self.opened += [task.name for task in tasks]

    def do_upsert(self, batch: PointBatch) -> Written:
        if self.error:
            raise self.error
        self.batches.append(batch)
        return Written({name: number for number, name in enumerate(batch.vectors, start=1)})

    def do_flush(self) -> None:
        pass


class _Method:
    def __init__(self, do: Any, log: list[tuple[str, str]], name: str) -> None:
        self._do, self._log, self._name = do, log, name

    def remote(self, *given: Any) -> Any:
        self._log.append(("asked", self._name))

        def wait() -> Any:
            self._log.append(("waited", self._name))
            return self._do(*given)

        return wait


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    def get(ref: Any, timeout: float | None = None) -> Any:
        assert timeout is not None
        return ref()

    monkeypatch.setattr("actors.callers.ray.get", get)
    return []


@pytest.fixture
def owners(log: list[tuple[str, str]]) -> list[Owner]:
    return [Owner(log, "first"), Owner(log, "second")]


@pytest.fixture
def store(owners: list[Owner]) -> DividedStore:
    first, second = owners
    return DividedStore(
        [
            (ActorCaller(first), [TASKS[0].collection, TASKS[2].collection]),
            (ActorCaller(second), [TASKS[1].collection]),
        ]
    )


def test_each_owner_opens_and_gets_what_is_its_own(store: DividedStore, owners: list[Owner]) -> None:
    store.open(TASKS)
    batch = make_batch([put("T-1", 1), put("T-2", 2)], *TASKS)
    written = store.upsert(batch)

    assert [owner.opened for owner in owners] == [["urgency", "mood"], ["technical_issue"]]
    ((first,), (second,)) = [owner.batches for owner in owners]
    assert [*first.vectors, *second.vectors] == [TASKS[number].collection for number in (0, 2, 1)]
    for part in (first, second):
        assert np.array_equal(part.ids, batch.ids)
        assert np.array_equal(part.versions, batch.versions)
        assert list(part.payloads) == list(batch.payloads)
    assert written.stale == {TASKS[0].collection: 1, TASKS[2].collection: 2, TASKS[1].collection: 1}


def test_an_owner_of_nothing_in_the_batch_is_not_asked(store: DividedStore, owners: list[Owner]) -> None:
    store.upsert(make_batch([put("T-1", 1)], TASKS[1]))
    assert [len(owner.batches) for owner in owners] == [0, 1]


def test_all_are_asked_before_the_first_is_waited_for(store: DividedStore, log: list[tuple[str, str]]) -> None:
    store.upsert(make_batch([put("T-1", 1)], *TASKS))
    store.flush()
    assert [what for what, _ in log] == ["asked", "asked", "waited", "waited"] * 2


def test_the_failure_of_one_is_the_failure_of_the_whole(store: DividedStore, owners: list[Owner]) -> None:
    owners[1].error = TransientError("away")
    with pytest.raises(TransientError, match="away"):
        store.upsert(make_batch([put("T-1", 1)], *TASKS))
