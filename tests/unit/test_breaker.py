"""When most records are bad, the configuration is wrong: the ingestor stops."""

import pytest

from pipeline.errors import EnvironmentFault, Reason
from pipeline.live.breaker import DeadLetterBreaker
from pipeline.live.offsets import OffsetTracker
from tests.fakes import FakeSource, record


def test_breaker_opens_only_when_most_of_a_full_window_is_bad() -> None:
    tracker = OffsetTracker()
    source = FakeSource(tracker)
    breaker = DeadLetterBreaker(0.5)
    breaker.add([source.deliver(Reason.INVALID_JSON) for _ in range(999)])
    with pytest.raises(EnvironmentFault, match=r"1000 of the last 1000 .*invalid_json"):
        breaker.add([source.deliver(Reason.INVALID_JSON)])
    calm = DeadLetterBreaker(0.5)
    calm.add([source.deliver(Reason.INVALID_JSON if number % 2 else record("a", 1)) for number in range(3_000)])
