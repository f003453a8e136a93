"""What the producer wrote, and what must have become of it."""

import json
from dataclasses import dataclass
from random import Random

from kafka import TopicPartition

from pipeline.errors import Reason
from pipeline.records.record import point_id
from tests.fakes import FakeDeadLetters, vector
from tests.simulation.broker import TOPIC, Message
from tests.simulation.services import SimStore

PIPELINE = "support"
REFUSED_KEY = "refused"
UNREADABLE = {b"{bad": Reason.INVALID_JSON, b"": Reason.EMPTY_VALUE, b"[1]": Reason.NOT_AN_OBJECT}


@dataclass(frozen=True)
class Entry:
    """One produced record. `reason` is set where it can never be stored."""

    message: Message
    id: bytes
    version: int
    text: str | None
    reason: Reason | None = None

    @property
    def readable(self) -> bool:
        """Whether only the model or the store refuses it: then a newer version may make that unnecessary."""
        return self.reason in {None, Reason.INVALID_EMBEDDING, Reason.CRASHES_WORKER, Reason.REFUSED_BY_STORE}


class Journal:
    """Produces records from a seed and remembers each."""

    def __init__(self, random: Random, num_partitions: int) -> None:
        self.entries: list[Entry] = []
        self.poison: set[str] = set()
        """Texts without a finite embedding."""
        self.deadly: set[str] = set()
        """Texts that kill the process that computes them."""
        self.refused = {point_id(PIPELINE, TOPIC, f"s:{REFUSED_KEY}")}
        self.versioned = random.random() < 0.6
        """Whether records carry their version; else it is the offset."""
        self._random = random
        self._num_partitions = num_partitions
        self._keys = [f"k{number}" for number in range(random.randint(1, 6))] + [REFUSED_KEY] * (random.random() < 0.2)
        self._offsets = [0] * num_partitions
        self._used: dict[str, set[int]] = {}

    def produce(self) -> Message:
        """Returns the next record: an update, a delete, something bad, or an earlier one again."""
        if self.versioned and self.entries and self._random.random() < 0.1:
            return self._repeat(self._random.choice(self.entries))
        number = self._random.randrange(len(self._keys))
        key, partition = self._keys[number], number % self._num_partitions
        offset = self._next_offset(partition)
        version = self._version(key) if self.versioned else offset
        kind = self._random.random()
        text: str | None = f"text {len(self.entries)}"
        reason = Reason.REFUSED_BY_STORE if key == REFUSED_KEY else None
        value: bytes | None = json.dumps({"id": key, "v": version, "text": text}).encode()
        headers: tuple[tuple[str, bytes], ...] = ()
        if kind < 0.15:
            text, value, headers = None, None, (("refract-version", str(version).encode()),)
        elif kind < 0.25:
            value, reason = self._random.choice(list(UNREADABLE.items()))
        elif kind < 0.32:
            self.poison.add(str(text))
            reason = reason or Reason.INVALID_EMBEDDING
        elif kind < 0.34:
            self.deadly.add(str(text))
            reason = reason or Reason.CRASHES_WORKER
        message = Message(TOPIC, partition, offset, 1_000, key.encode(), value, headers)
        self.entries.append(Entry(message, point_id(PIPELINE, TOPIC, f"s:{key}"), version, text, reason))
        return message

    def _repeat(self, entry: Entry) -> Message:
        partition = entry.message.partition
        message = entry.message._replace(offset=self._next_offset(partition))
        self.entries.append(Entry(message, entry.id, entry.version, entry.text, entry.reason))
        return message

    def _next_offset(self, partition: int) -> int:
        offset = self._offsets[partition]
        self._offsets[partition] = offset + self._random.choice([1, 1, 1, 3])  # compaction leaves gaps
        return offset

    def _version(self, key: str) -> int:
        """A new one, usually above all before; sometimes a late one below them."""
        used = self._used.setdefault(key, set())
        version = max(used, default=10) + self._random.randint(1, 3)
        if used and self._random.random() < 0.25:
            version = self._random.choice([late for late in range(1, version + 1) if late not in used])
        used.add(version)
        return version


class Oracle:
    """Compares store, dead letters and commits with the journal. Violations are sentences; none is the aim."""

    def __init__(
        self, journal: Journal, store: SimStore, letters: FakeDeadLetters, collections: dict[str, str]
    ) -> None:
        self.violations: list[str] = []
        self._journal = journal
        self._store = store
        self._letters = letters
        self._collections = collections
        """Task name -> physical collection."""

    def judge_commit(self, place: TopicPartition, offset: int) -> None:
        """Nothing below a committed offset may still need work: the member could die this moment."""
        for entry in self._journal.entries:
            message = entry.message
            if message.partition == place.partition and message.offset < offset and not self._settled(entry):
                self.violations.append(f"committed {place.partition}:{offset} before {_name(entry)} was finished")

    def judge_end(self) -> None:
        """Everything is quiet: the store must equal the source."""
        newest: dict[bytes, Entry] = {}
        for entry in self._journal.entries:
            if entry.reason is None and (entry.id not in newest or entry.version > newest[entry.id].version):
                newest[entry.id] = entry
            if not self._settled(entry):
                self.violations.append(f"lost: {_name(entry)}")
        for task, collection in self._collections.items():
            points = self._store.points.get(collection, {})
            self.violations += [f"{task}: extra point {point.hex()[:6]}" for point in points.keys() - newest.keys()]
            for point, entry in newest.items():
                self._compare(task, entry, points.get(point))
        self._judge_letters()
        self.violations += self._store.violations

    def _compare(self, task: str, entry: Entry, found: tuple[int, bool, object] | None) -> None:
        if found is None:
            self.violations.append(f"{task}: {_name(entry)} is missing")
            return
        version, deleted, row = found
        if (version, deleted) != (entry.version, entry.text is None):
            self.violations.append(f"{task}: {_name(entry)} expected, found version {version}, deleted {deleted}")
        elif entry.text is not None and not (row == vector(task, entry.text)).all():
            self.violations.append(f"{task}: {_name(entry)} has the vector of another text")

    def _judge_letters(self) -> None:
        reasons = {(entry.message.partition, entry.message.offset): entry.reason for entry in self._journal.entries}
        for letter in self._letters.letters:
            expected = reasons[letter.position.partition, letter.position.offset]
            if letter.reason is not expected and expected is not Reason.REFUSED_BY_STORE:
                self.violations.append(f"dead letter {letter.position}: {letter.reason}, expected {expected}")

    def _settled(self, entry: Entry) -> bool:
        """Stored or older than what is stored; or dead-lettered, or older than what was, where it is bad itself."""
        if entry.reason is not None and (self._lettered(entry) or (entry.readable and self._superseded(entry))):
            return True
        return entry.readable and all(
            self._store.version(collection, entry.id) >= entry.version for collection in self._collections.values()
        )

    def _superseded(self, entry: Entry) -> bool:
        return any(
            other.id == entry.id and other.version >= entry.version and self._lettered(other)
            for other in self._journal.entries
        )

    def _lettered(self, entry: Entry) -> bool:
        place = (entry.message.partition, entry.message.offset)
        return any((letter.position.partition, letter.position.offset) == place for letter in self._letters.letters)


def _name(entry: Entry) -> str:
    message = entry.message
    return f"{message.key!r} version {entry.version} at {message.partition}:{message.offset}"
