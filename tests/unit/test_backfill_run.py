"""What a backfill does with a fragment that came back without being through; the cluster is played."""

from typing import Any

import pytest
from ray.exceptions import RayTaskError

from actors.backfill_run import MAX_ATTEMPTS, BackfillRun
from pipeline.backfill.carrier import UnflushedError
from pipeline.backfill.fragments import Fragment
from pipeline.backfill.rows import FragmentFault
from pipeline.backfill.work import Work
from pipeline.errors import EnvironmentFault, RefractError, TransientError

WORK = Work(Fragment("a.parquet", size=100, mtime_ns=0, part=0), ["one"], 0)
REF = object()


class Run(BackfillRun):
    """Without a cluster."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._on_failed = lambda _, why: self.failed.append(why)
        self._checkpoints = {}
        self._carried = {}

    def settle(self, attempt: int, error: RefractError, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Work, int]]:
        """Returns what waits to be carried again after an attempt that ended so."""

        def get(_: Any) -> Any:
            raise RayTaskError("carry", "", error)  # type: ignore[no-untyped-call]  # Ray's

        waiting: list[tuple[Work, int]] = []
        monkeypatch.setattr("actors.backfill_run.ray.get", get)
        self._settle(REF, {REF: (WORK, attempt, 0)}, waiting)
        return waiting


def test_what_was_not_flushed_is_carried_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    for attempt in range(1, MAX_ATTEMPTS):
        assert run.settle(attempt, UnflushedError("the store died"), monkeypatch) == [(WORK, attempt + 1)]
    assert run.failed == []
    assert run.settle(MAX_ATTEMPTS, UnflushedError("the store died"), monkeypatch) == []
    assert run.failed == [f"the store died, {MAX_ATTEMPTS} times"]


def test_a_fragment_at_fault_fails_alone_and_anything_else_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    assert run.settle(1, FragmentFault("cut short"), monkeypatch) == []
    assert run.failed == ["cut short"]
    for error in (EnvironmentFault("another dimension"), TransientError("no server there")):
        with pytest.raises(type(error)):
            run.settle(1, error, monkeypatch)
    assert run.failed == ["cut short"]
