"""What happens to one batch of deliveries: refracted into a point per task, written, and only then finished."""

from collections.abc import Iterable, Sequence

from pipeline import failpoints
from pipeline.live.lane import Item, Lane
from pipeline.live.offsets import OffsetTracker
from pipeline.live.routes import Ports, Routes
from pipeline.live.witness import witness_tags
from pipeline.records.record import Delivery, Partition, Witness


class Refractor:
    """Carries batches of one topic from delivery to finished, for all of the topic's tasks at once.

    After `process` returns, every delivery of the batch is durable in all collections, proven older,
    or acknowledged in the dead-letter topic, and its receipt is finished. If it raises, no receipt is finished.
    Thread-safe: batch threads share one instance.
    """

    def __init__(self, routes: Routes, ports: Ports, tracker: OffsetTracker) -> None:
        self._lanes = {topic: Lane(topic, routes, ports) for topic in routes.tasks}
        self._tags = {topic: witness_tags(tasks) for topic, tasks in routes.tasks.items()}
        self._ports = ports
        self._tracker = tracker

    def process(self, deliveries: Sequence[Delivery]) -> None:
        """Finishes a batch of one topic.

        Raises TransientError only when the worker stops, EnvironmentFault when a person must help.
        """
        current = self._current(deliveries)
        if not current:
            return
        topic = current[0].position.topic
        lane = self._lanes[topic]
        done = lane.refract(current)
        letters = [delivery.dead_letter(delivery.error, delivery.detail) for delivery in current if delivery.error]
        letters += done.letters
        if letters:
            # Awaited before anything is finished: a record is stored or it is in the dead-letter topic.
            self._ports.retry("dead_letters", lambda: self._ports.dead_letters.send(letters))
            failpoints.reach("after_dead_letter")
        self._tracker.finish((delivery.receipt for delivery in current), self._witnesses(topic, done.items))
        lane.count(done, letters)

    def failing_s(self) -> float:
        """Returns for how long a batch has been waiting for a component that is away, else 0."""
        return self._ports.retry.failing_s()

    def _current(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Drops what was revoked since the poll: its new owner reads it again, and the guard settles any race."""
        current = [delivery for delivery in deliveries if self._tracker.is_current(delivery.receipt)]
        if len(current) < len(deliveries):
            self._ports.observer.dropped(deliveries[0].position.topic, len(deliveries) - len(current))
        return current

    def _witnesses(self, topic: str, items: Iterable[Item]) -> dict[Partition, Witness]:
        """Returns a point of each partition that is stored now."""
        tags = self._tags[topic]
        last = {item.delivery.receipt.partition: item for item in items}
        return {place: Witness(item.id, item.record.version, tags) for place, item in last.items()}
