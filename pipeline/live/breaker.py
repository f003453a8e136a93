"""Stops the ingestor when most records are bad: then the configuration is wrong, not the records."""

from collections import deque
from collections.abc import Sequence

from pipeline.errors import EnvironmentFault
from pipeline.records.record import Delivery

WINDOW_RECORDS = 1_000


class DeadLetterBreaker:
    """Watches the share of dead letters among the last records. One thread."""

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._recent: deque[bool] = deque(maxlen=WINDOW_RECORDS)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Counts deliveries. Raises EnvironmentFault when the share over the last 1,000 is above the limit."""
        self._recent.extend(delivery.error is not None for delivery in deliveries)
        num_bad = sum(self._recent)
        if len(self._recent) == WINDOW_RECORDS and num_bad > self._max_share * WINDOW_RECORDS:
            last = next((delivery.error for delivery in reversed(deliveries) if delivery.error), None)
            raise EnvironmentFault(
                f"{num_bad} of the last {WINDOW_RECORDS} records are dead letters (the last one: {last}), more "
                f"than limits.max_dead_letter_share {self._max_share}: check the topic's format, key, text and version"
            )
