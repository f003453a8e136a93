"""Every random decision of a run comes from here, and everything worth telling is noted here."""

from tests.simulation.scheduler import Scheduler


class Chaos:
    """Faults while `active`; latencies always."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.random = scheduler.random
        self.active = True
        self.down_until_s: dict[str, float] = {}
        """Component -> the end of its outage."""
        self.rate = self.random.choice([0.3, 1.0, 3.0])
        self.trace: list[tuple[float, str]] = []
        self._scheduler = scheduler

    @property
    def now(self) -> float:
        return self._scheduler.now

    def note(self, event: str) -> None:
        self.trace.append((self.now, event))

    def pause(self, longest_s: float) -> None:
        self._scheduler.pause(longest_s)

    def flip(self, probability: float) -> bool:
        return self.random.random() < probability

    def flip_fault(self, component: str, probability: float) -> bool:
        """Whether a call of the component fails now."""
        if not self.active:
            return False
        failed = self.now < self.down_until_s.get(component, 0.0) or self.flip(probability * self.rate)
        if failed:
            self.note(f"fault: {component}")
        return failed
