"""A seeded sample of texts from a stream of any length, every distinct text once."""

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Content = TypeVar("Content")


@dataclass(slots=True)
class Sampled(Generic[Content]):
    """One distinct text."""

    content: Content
    """What the first row with this text carried."""
    labels: dict[str, str | None]
    """Value of each label: of the first row with this text that has one."""
    num_rows: int = 1
    """Rows with this text."""
    contradicted: set[str] = field(default_factory=set)
    """Labels for which another row with this text has another value."""


class Sample(Generic[Content]):
    """Keeps at most so many distinct texts of those offered, each as likely as any other.

    A text's place in the draw is a hash of the seed and the text. So the sample depends neither on the order
    of the rows nor on how often a text occurs, equal texts meet, and memory is that of the rows kept; and two
    samples with one seed agree on the texts they both saw.
    """

    def __init__(self, max_texts: int, *, seed: int) -> None:
        self._max_texts = max_texts
        self._key = seed.to_bytes(8, "big", signed=True)
        self._kept: dict[int, Sampled[Content]] = {}
        self._last: list[int] = []
        """The draws kept, negated: the heap's first is the one to go next."""
        self.num_offered = 0
        """Rows seen."""
        self.is_whole = True
        """Whether every distinct text is still here."""

    def offer(self, identity: bytes, labels: Mapping[str, str | None], content: Content) -> None:
        """Takes a row into the draw.

        Args:
            identity: What makes it equal to another row: its text, or its point's id.
            labels: The same names for every row.
            content: Kept with the first row of an identity.
        """
        self.num_offered += 1
        draw = int.from_bytes(hashlib.blake2b(identity, digest_size=8, key=self._key).digest(), "big")
        known = self._kept.get(draw)
        if known is not None:
            _merge(known, labels)
            return
        if len(self._kept) == self._max_texts:
            self.is_whole = False
            if draw > -self._last[0]:
                return
            del self._kept[-heapq.heappop(self._last)]
        self._kept[draw] = Sampled(content, dict(labels))
        heapq.heappush(self._last, -draw)

    def texts(self) -> list[Sampled[Content]]:
        """Returns what was kept, in the order of the draw."""
        return [self._kept[draw] for draw in sorted(self._kept)]


def _merge(known: Sampled[Content], labels: Mapping[str, str | None]) -> None:
    known.num_rows += 1
    for name, value in labels.items():
        if value is None:
            continue
        if known.labels[name] is None:
            known.labels[name] = value
        elif known.labels[name] != value:
            known.contradicted.add(name)
