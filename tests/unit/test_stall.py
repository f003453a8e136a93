"""A loop that hangs is noticed, ready or not."""

from threading import Event
from typing import Any

import pytest

from tests.unit.test_worker import Rig


@pytest.mark.parametrize("where", ["store", "source", "first poll"])
def test_a_call_that_hangs_before_the_worker_is_ready_shows_as_a_stall(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    rig = Rig()
    now, hangs, release = [100.0], Event(), Event()

    def hang(*_: object) -> Any:
        hangs.set()
        release.wait(10)
        return []

    monkeypatch.setattr(rig.worker, "_clock", lambda: now[0])
    rig.worker.turned_s = now[0]
    if where == "store":
        monkeypatch.setattr(rig.store, "open", hang)
    elif where == "source":
        monkeypatch.setattr(rig.worker, "_open_source", lambda: hang() or rig.source)
    else:
        monkeypatch.setattr(rig.source, "poll", hang)
    rig.thread.start()
    assert hangs.wait(10)
    assert not rig.worker.ready
    now[0] += 200
    assert rig.worker.stalled_s() == 200
    rig.worker.stop()
    assert rig.worker.stalled_s() == 0
    release.set()
    rig.finish()
