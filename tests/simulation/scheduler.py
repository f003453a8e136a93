"""Threads on virtual time: one runs at a time, and a seed decides when each goes on.

The product's own threads run here unchanged. Each is a real thread that holds the baton until it
waits for something; then the one with the earliest wake-up takes over and the clock jumps there.
Nothing else may switch between them, so one seed is one schedule.
"""

import threading
from collections.abc import Callable
from math import inf
from random import Random
from typing import Self


class ProcessDiedError(BaseException):
    """Raised inside every thread of a killed process where it waits: nothing it does afterwards counts."""


class Process:
    """What is killed or frozen as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen_until_s = 0.0


class SimThread:
    """Stands in for threading.Thread."""

    def __init__(self, scheduler: "Scheduler", process: Process, target: Callable[[], None], name: str) -> None:
        self.process = process
        self.name = f"{process.name}/{name}"
        self.wake_s = inf
        self.finished = False
        self.baton = threading.Lock()
        self.baton.acquire()
        self._scheduler = scheduler
        self._target = target
        self._joiners: set[SimThread] = set()
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @property
    def due_s(self) -> float:
        """When it goes on: never later than at once for the dead, who have to unwind."""
        return max(self.wake_s, self.process.frozen_until_s) if self.process.alive else 0.0

    def start(self) -> None:
        self._scheduler.add(self)
        self.thread.start()

    def join(self) -> None:
        while not self.finished:
            self._scheduler.wait(self._joiners)

    def _run(self) -> None:
        self.baton.acquire()
        try:
            self._target()
        except ProcessDiedError:
            pass
        finally:
            self.finished = True
            self._scheduler.wake(self._joiners)
            self._scheduler.leave(self)


class Scheduler:
    """Owns the clock and the baton. The thread that creates it is its first participant."""

    def __init__(self, random: Random) -> None:
        self.now = 0.0
        self.random = random
        self.main = SimThread(self, Process("main"), lambda: None, "main")
        self.current = self.main
        self._threads = [self.main]

    @property
    def num_threads(self) -> int:
        return len(self._threads)

    def clock(self) -> float:
        return self.now

    def add(self, thread: SimThread) -> None:
        thread.wake_s = self.now + self.random.random() / 1000
        self._threads.append(thread)

    def spawn(self, target: Callable[[], None], *, name: str, daemon: bool = True) -> SimThread:  # noqa: ARG002
        """Makes a thread of the running one's process; takes what `threading.Thread` takes."""
        return SimThread(self, self.current.process, target, name)

    def sleep(self, seconds: float) -> None:
        """Lets the others run for so long. Raises ProcessDiedError when the process was killed meanwhile."""
        me = self.current
        me.wake_s = self.now + seconds
        self._switch(me)
        if not me.process.alive:
            raise ProcessDiedError(me.process.name)

    def pause(self, longest_s: float) -> None:
        """Sleeps for a random time."""
        self.sleep(self.random.random() * longest_s)

    def wait(self, waiters: set[SimThread], timeout_s: float | None = None) -> None:
        """Sleeps until somebody wakes the waiters, or for `timeout_s`."""
        waiters.add(self.current)
        try:
            self.sleep(inf if timeout_s is None else timeout_s)
        finally:
            waiters.discard(self.current)

    def wake(self, waiters: set[SimThread]) -> None:
        for thread in sorted(waiters, key=lambda waiter: waiter.name):
            thread.wake_s = min(thread.wake_s, self.now + self.random.random() / 1000)

    def leave(self, thread: SimThread) -> None:
        """The last act of a thread: hands the baton on for good."""
        self._threads.remove(thread)
        self._next().baton.release()

    def _switch(self, me: SimThread) -> None:
        following = self._next()
        if following is not me:
            following.baton.release()
            me.baton.acquire()

    def _next(self) -> SimThread:
        following = min(self._threads, key=lambda thread: (thread.due_s, thread.name))
        if following.due_s == inf:
            raise AssertionError(f"deadlock: {sorted(thread.name for thread in self._threads)}")
        self.now = max(self.now, following.due_s)
        self.current = following
        return following


class SimEvent(threading.Event):
    """Stands in for threading.Event."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._waiters: set[SimThread] = set()

    def set(self) -> None:
        super().set()
        self._scheduler.wake(self._waiters)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._scheduler.wait(self._waiters, timeout)
        return self.is_set()


class SimCondition:
    """Stands in for threading.Condition. Its lock is the baton, which nobody loses outside `wait`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters: set[SimThread] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> None:
        self._scheduler.wait(self._waiters, timeout)

    def notify_all(self) -> None:
        self._scheduler.wake(self._waiters)
