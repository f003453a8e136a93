"""Decides where a newly assigned partition starts, and refuses offsets that no longer mean the same log. Pure.

Every commit carries a mark (in Kafka's own metadata string of a committed offset): the topic's id and
partition count, and the generation. Where versions come from offsets, a changed id or count would
let old records win against new ones, so the topic is refused until the generation is raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from pipeline.config.source import TopicConfig
from pipeline.errors import EnvironmentFault
from pipeline.records.record import MAX_VERSION, Partition, Witness

MAX_WITNESSED = 300
"""Collections that a commit names as holding its witness, at 11 bytes each: brokers take 4,096 bytes in all."""

_ID_BYTES = 16
"""Of a point's id."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a committed offset belongs to."""

    topic_id: str
    """Empty where the broker is too old to tell (before Kafka 2.8)."""
    num_partitions: int
    first_partitions: int
    """Partitions when the group first read the topic: those above are later additions."""
    generation: int

    def dump(self, witness: Witness | None = None) -> str:
        """Returns the metadata string of a commit."""
        content: dict[str, Any] = {
            "id": self.topic_id,
            "n": self.num_partitions,
            "first": self.first_partitions,
            "gen": self.generation,
        }
        if witness is not None:
            content["held"] = [witness.id.hex(), witness.version, sorted(witness.collections)[:MAX_WITNESSED]]
        return orjson.dumps(content).decode()

    def is_of_another(self, topic_id: str) -> bool:
        """Whether the mark belongs to an earlier topic of the same name."""
        return bool(self.topic_id and topic_id and self.topic_id != topic_id)

    @classmethod
    def load(cls, metadata: object) -> Self | None:
        """Returns the mark in a metadata string, None when it was written by something else."""
        try:
            found = orjson.loads(metadata if isinstance(metadata, str) else "")
            mark = cls(str(found["id"]), int(found["n"]), int(found["first"]), int(found["gen"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None
        numbers = (mark.num_partitions, mark.first_partitions, mark.generation)
        return mark if all(0 <= number <= MAX_VERSION for number in numbers) else None


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic is now."""

    topic_id: str
    num_partitions: int


def load_witness(metadata: object) -> Witness | None:
    """Returns the point that a metadata string says the store held, None when it names none."""
    try:
        point, version, collections = orjson.loads(metadata if isinstance(metadata, str) else "")["held"]
        witness = Witness(bytes.fromhex(point), int(version), frozenset(map(str, collections)))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return witness if len(witness.id) == _ID_BYTES and 0 <= witness.version <= MAX_VERSION else None


def without_witness(metadata: str) -> str:
    """Returns a metadata string without what the store held: for an offset from which records are re-read."""
    mark = Mark.load(metadata)
    return metadata if mark is None else mark.dump()


@dataclass(frozen=True, slots=True)
class Committed:
    """An offset the group has committed."""

    offset: int
    mark: Mark | None
    witness: Witness | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What the group has kept of a topic."""

    siblings: Sequence[Committed] = ()
    """Committed offsets of the topic's other partitions."""
    remembered: Mark | None = None
    """The mark beside them (see `pipeline.sources.group.memory`): offsets go with a deleted topic, this stays."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to start: at `offset`; or, when that is None, at the beginning or the end of what is kept."""

    offset: int | None
    at_end: bool
    mark: Mark
    """To be committed with every offset of this partition from now on."""
    is_first: bool
    """Whether the group has no usable offset yet: the start must be committed before reading."""
    witness: Witness | None = None
    """What the store must hold for the offset to stand."""


def resume(partition: Partition, config: TopicConfig, committed: Committed, topic: Topic) -> Start:
    """Returns the start of a partition that has a committed offset.

    Raises:
        EnvironmentFault: versions come from offsets, and the topic is another or has more partitions.
    """
    mark = committed.mark
    new_mark = Mark(topic.topic_id, topic.num_partitions, topic.num_partitions, config.generation)
    if mark is None:
        return Start(committed.offset, at_end=False, mark=new_mark, is_first=False, witness=committed.witness)
    recreated = mark.is_of_another(topic.topic_id)
    if config.version is None:
        _check_generation(partition.topic, config, mark, topic, recreated=recreated)
    if recreated:
        # The offset belongs to a log that is gone.
        return Start(None, at_end=False, mark=new_mark, is_first=True)
    current = replace(new_mark, topic_id=topic.topic_id or mark.topic_id, first_partitions=mark.first_partitions)
    return Start(committed.offset, at_end=False, mark=current, is_first=False, witness=committed.witness)


def begin(partition: Partition, config: TopicConfig, start_from: str, history: History, topic: Topic) -> Start:
    """Returns the start of a partition without a committed offset.

    A partition that was added later, and a recreated topic, are read from the beginning, whatever
    `start_from` says.

    Raises:
        EnvironmentFault: as `resume`.
    """
    marks = [sibling.mark for sibling in history.siblings if sibling.mark is not None]
    if history.remembered is not None:
        marks.append(history.remembered)
    if config.version is None:
        for mark in marks:
            _check_generation(partition.topic, config, mark, topic, recreated=mark.is_of_another(topic.topic_id))
    own = [mark for mark in marks if not mark.is_of_another(topic.topic_id)]
    first = min((mark.first_partitions for mark in own), default=topic.num_partitions)
    known_before = bool(history.siblings) or history.remembered is not None
    added_later = known_before and (not own or partition.number >= first)
    at_end = start_from == "latest" and not added_later
    return Start(
        None, at_end=at_end, mark=Mark(topic.topic_id, topic.num_partitions, first, config.generation), is_first=True
    )


def _check_generation(name: str, config: TopicConfig, mark: Mark, topic: Topic, *, recreated: bool) -> None:
    place = f"source.topics.{name}"
    if config.generation < mark.generation:
        raise EnvironmentFault(
            f"{place}.generation is {config.generation}, but the group has read the topic with {mark.generation}: "
            f"new records would lose against stored ones; set it back to {mark.generation} or higher"
        )
    if config.generation > mark.generation:
        return
    if recreated:
        raise EnvironmentFault(
            f"topic {name!r} was deleted and created again (its id has changed), and its offsets, which are its "
            f"versions, have restarted; set {place}.generation to {config.generation + 1}, or give it a `version` field"
        )
    if mark.num_partitions != topic.num_partitions:
        raise EnvironmentFault(
            f"topic {name!r} has {topic.num_partitions} partitions instead of {mark.num_partitions}: keys may have "
            f"moved, and offsets of two partitions are not comparable as versions of one key. Once the old partitions "
            f"are read to their end, set {place}.generation to {config.generation + 1}, or give it a `version` field"
        )
