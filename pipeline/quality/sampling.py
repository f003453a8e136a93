"""A seeded sample of records from a stream of any length, and the distinct texts among them."""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Content = TypeVar("Content")


@dataclass(slots=True)
class _Kept(Generic[Content]):
    version: int
    content: Content | None


class KeySample(Generic[Content]):
    """Keeps the newest state of at most so many keys of those offered, each key as likely as any other.

    A key's place in the draw is a hash of the seed and the key. So the sample depends neither on the order of the
    rows nor on how often a key occurs, memory is that of what is kept, and two samples with one seed agree on the
    keys that both saw.
    """

    def __init__(self, max_keys: int, *, seed: int, always: Sequence[bytes] = ()) -> None:
        """Keys of `always` are kept beside the others, if they occur."""
        self._max_keys = max_keys
        self._seed = seed.to_bytes(8, "big", signed=True)
        self._always = frozenset(always)
        self._kept: dict[int, _Kept[Content]] = {}
        self._last: list[int] = []
        """The draws kept that may go, negated: the heap's first is the one to go next."""
        self.num_offered = 0
        """Rows seen."""
        self.is_whole = True
        """Whether no key was left out."""

    def offer(self, key: bytes, version: int, content: Content | None) -> None:
        """Takes a row into the draw; of one key the highest version stays, of equal versions the first.

        Args:
            key: What makes it another state of the same record.
            version: How new the state is.
            content: What is kept of it; None deletes the key.
        """
        self.num_offered += 1
        draw = int.from_bytes(hashlib.blake2b(key, digest_size=8, key=self._seed).digest(), "big")
        known = self._kept.get(draw)
        if known is not None:
            if version > known.version:
                known.version, known.content = version, content
            return
        if key not in self._always:
            if len(self._last) == self._max_keys:
                self.is_whole = False
                if draw > -self._last[0]:
                    return
                del self._kept[-heapq.heappop(self._last)]
            heapq.heappush(self._last, -draw)
        self._kept[draw] = _Kept(version, content)

    def contents(self) -> list[Content]:
        """Returns what was kept of the keys that live, in the order of the draw."""
        ordered = (self._kept[draw].content for draw in sorted(self._kept))
        return [content for content in ordered if content is not None]


@dataclass(frozen=True, slots=True)
class Distinct:
    """The distinct texts of some records."""

    rows: tuple[int, ...]
    """The first record with each text."""
    labels: Mapping[str, tuple[str | None, ...]]
    """Values of each label, by text: of the first record with the text that has one."""
    contradicted: Mapping[str, int]
    """Texts of each label that other records give another value."""


def distinct_texts(texts: Sequence[str], labels: Mapping[str, Sequence[str | None]]) -> Distinct:
    """Returns each text once: equal texts would be one another's nearest neighbours, and tell nothing.

    Args:
        texts: Of every record.
        labels: Values of each label, by record.
    """
    places: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        places.setdefault(text, []).append(row)
    merged: dict[str, tuple[str | None, ...]] = {}
    contradicted: dict[str, int] = {}
    for name, values in labels.items():
        found = [[values[row] for row in rows if values[row] is not None] for rows in places.values()]
        merged[name] = tuple(known[0] if known else None for known in found)
        contradicted[name] = sum(len(set(known)) > 1 for known in found)
    return Distinct(tuple(rows[0] for rows in places.values()), merged, contradicted)
