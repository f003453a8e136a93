"""What a backfill on Ray does about actors that are gone, or seem to be."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors import backfill_run
from actors.backfill_run import BackfillRun, _Call


class Carriers:
    """Stands in for Ray: makes carriers, and notes which are killed."""

    def __init__(self, error: Exception) -> None:
        self.made: list[Any] = []
        self.killed: list[Any] = []
        self._error = error

    def remote(self, *_given: object) -> Any:
        carrier = SimpleNamespace(ready=SimpleNamespace(remote=lambda: f"ready {len(self.made)}"))

        def make(*_job: object) -> Any:
            self.made.append(carrier)
            return carrier

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def kill(self, carrier: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(carrier)

    def get(self, _ref: object) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [ActorUnavailableError("out of reach", None), ActorDiedError()])
@pytest.mark.parametrize("when", ["starting", "carrying"])
def test_a_carrier_that_seems_lost_is_killed_before_another_one_starts(
    monkeypatch: pytest.MonkeyPatch, error: Exception, when: str
) -> None:
    ray = Carriers(error)
    for name in ("remote", "kill", "get"):
        monkeypatch.setattr(f"actors.backfill_run.ray.{name}", getattr(ray, name))
    monkeypatch.setattr(backfill_run, "_done", list)
    run = BackfillRun.__new__(BackfillRun)
    run._config = SimpleNamespace(ray=SimpleNamespace(ingestor_cpus=1))  # type: ignore[assignment]
    run._job, run._embedders, run._owners = None, {}, []  # type: ignore[assignment]
    run._carriers, run._joining, run._calls = {}, {}, {}
    told: list[str] = []
    dispatch: Any = SimpleNamespace(
        carrier_lost=lambda _number, why: told.append(why), carrier_not_started=told.append, carrier_up=None
    )
    run._start_carrier(0)
    assert ray.killed == []
    if when == "starting":
        run._meet(dispatch)
    else:
        run._calls["call"] = _Call(0, None)  # type: ignore[arg-type]
        run._settle("call", dispatch)
    assert len(told) == 1
    assert ray.killed == [ray.made[0]]
    assert run._carriers[0] is ray.made[1]
