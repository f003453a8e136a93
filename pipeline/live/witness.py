"""Whether the store still is what the committed offsets stand for.

Offsets are Kafka's and outlive the store: a collection that was dropped and recreated, or restored
from an older snapshot, would silently lack what the group has committed as stored. So each commit
carries a *witness*, a point that was stored just before; nobody reads on from an offset whose witness
is gone, and nothing more is committed once the last one is.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pipeline.binding import Task
from pipeline.errors import EnvironmentFault
from pipeline.interfaces import PointReader
from pipeline.records.record import Partition, Witness, collection_tag

Confirm = Callable[[Collection[tuple[Partition, Witness]]], None]
"""Raises EnvironmentFault when the store no longer holds what offsets stand for. Called from several threads."""


def witness_tags(tasks: Iterable[Task]) -> frozenset[str]:
    """Returns the tags of the collections that a topic's points are written to."""
    return frozenset(collection_tag(task.collection) for task in tasks)


def confirm(
    store: PointReader,
    tasks: Mapping[str, Sequence[Task]],
    group: str,
    witnesses: Collection[tuple[Partition, Witness]],
) -> None:
    """Returns when the store holds every witness, at its version or a newer one, wherever it was written.

    A task that is new since the commit is not asked for it. `tasks` are those of each topic.

    Raises:
        EnvironmentFault: a collection has lost what was committed.
        TransientError: see `PointReader.retrieve`.
    """
    collections = {
        task.collection: collection_tag(task.collection) for place, _ in witnesses for task in tasks[place.topic]
    }
    for collection, tag in collections.items():
        expected = [
            (place, witness)
            for place, witness in witnesses
            if tag in witness.collections and any(task.collection == collection for task in tasks[place.topic])
        ]
        ids = list({witness.id for _, witness in expected})
        held = {point.id: point.version for point in store.retrieve(collection, ids)} if ids else {}
        lost = sorted({place for place, witness in expected if held.get(witness.id, -1) < witness.version})
        if lost:
            places = ", ".join(f"{topic}[{number}]" for topic, number in lost)
            raise EnvironmentFault(
                f"collection {collection!r} lacks what group {group!r} had stored before it committed its offsets of "
                f"{places}: it was dropped, recreated, or restored from an older state. `refract verify` shows what "
                f"is missing; stop the app and re-read the topics with `refract rewind --to earliest --execute`"
            )
