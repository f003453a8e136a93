"""Which work goes to which carrier, and what happens to work that comes back unfinished. Pure: no process, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.backfill.carrier import WorkInterruptedError
from pipeline.backfill.executor import BackfillEvents
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.rows import FragmentFault
from pipeline.backfill.work import Work
from pipeline.errors import RefractError

WORKS_PER_CARRIER = 2
"""One is written while the next is read."""

MAX_ATTEMPTS = 3


@dataclass(slots=True)
class _Attempt:
    """One try at a work."""

    work: Work
    number: int = 1
    carrier: int = -1
    reached: Outcome | None = None
    """Its last checkpoint."""
    earlier: Counts = field(default_factory=Counts)
    """Of what earlier attempts made durable."""

    def next(self) -> "_Attempt":
        """Returns the attempt at what no checkpoint says is durable."""
        work = self.work
        if self.reached is not None:
            self.earlier.add(self.reached.counts)
            work = replace(work, start=self.reached.next_row)
        return _Attempt(work, self.number + 1, earlier=self.earlier)


class Dispatch:
    """The works of one run and the carriers, by number, that have some of them. One thread.

    The executor says what happened; works that are durable or have failed are told to `events`.
    """

    def __init__(self, works: Sequence[Work], max_carriers: int, events: BackfillEvents) -> None:
        """No carrier is up yet. Works are handed out in their order."""
        self.num_carriers = min(max_carriers, len(works))
        self._events = events
        self._waiting = [_Attempt(work) for work in reversed(works)]
        """The next one is the last."""
        self._under_way: dict[str, _Attempt] = {}
        self._up: set[int] = set()
        self._failed_starts = 0
        self._finished = Counts()

    @property
    def is_over(self) -> bool:
        """Whether every work is done or has failed."""
        return not self._waiting and not self._under_way

    def carrier_up(self, number: int) -> None:
        """A carrier takes work from now on."""
        self._failed_starts = 0
        self._up.add(number)

    def carrier_not_started(self, why: str) -> None:
        """A carrier died before it was up. Raises RefractError when that happens again and again."""
        self._failed_starts += 1
        if self._failed_starts == MAX_ATTEMPTS:
            raise RefractError(f"a carrier could not start: {why}")

    def carrier_lost(self, number: int, why: str) -> None:
        """A carrier is gone, and takes no work until it is up again; what it had is carried again."""
        self._up.discard(number)
        for attempt in [attempt for attempt in self._under_way.values() if attempt.carrier == number]:
            self._again(attempt, why)

    def hand_out(self) -> list[tuple[int, Work]]:
        """Returns which carrier shall begin which work now; it counts as under way."""
        handed = []
        for number in sorted(self._up):
            busy = sum(attempt.carrier == number for attempt in self._under_way.values())
            for _ in range(min(WORKS_PER_CARRIER - busy, len(self._waiting))):
                attempt = self._waiting.pop()
                attempt.carrier = number
                self._under_way[attempt.work.name] = attempt
                handed.append((number, attempt.work))
        return handed

    def finished(self, work: Work, outcome: Outcome) -> None:
        """A work is durable to its end."""
        attempt = self._under_way.pop(work.name)
        outcome.counts.add(attempt.earlier)
        self._finished.add(outcome.counts)
        self._events.noted(work, outcome, done=True)

    def returned(self, work: Work, error: RefractError) -> None:
        """A work came back with an error. Raises it where it is not the fragment's own."""
        attempt = self._under_way[work.name]
        if isinstance(error, WorkInterruptedError):
            self._again(attempt, str(error))
        elif isinstance(error, FragmentFault):
            del self._under_way[work.name]
            self._events.failed(work, str(error))
        else:
            raise error

    def reached(self, checkpoints: Mapping[str, Outcome]) -> None:
        """Rows of works under way are durable, by name. Late ones of a carrier that is gone are welcome, too."""
        for name, outcome in checkpoints.items():
            attempt = self._under_way.get(name)
            if attempt is not None and outcome.next_row > attempt.work.start:
                attempt.reached = outcome
                self._events.noted(attempt.work, outcome, done=False)

    def counts(self, under_way: Iterable[Counts]) -> Counts:
        """Returns the counts of what is finished, and of what the carriers say is under way."""
        counts = Counts()
        for some in (self._finished, *under_way):
            counts.add(some)
        return counts

    def _again(self, attempt: _Attempt, why: str) -> None:
        del self._under_way[attempt.work.name]
        if attempt.number == MAX_ATTEMPTS:
            self._events.failed(attempt.work, f"{why}, {MAX_ATTEMPTS} times")
        else:
            self._waiting.append(attempt.next())
