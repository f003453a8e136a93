"""What is shown of the core loop: how far behind each topic is, on its own."""

from dataclasses import replace

from prometheus_client import CollectorRegistry

from pipeline.live.buffer import DeliveryBuffer
from pipeline.live.observer import IngestObserver
from pipeline.live.offsets import OffsetTracker
from pipeline.metrics import IngestMetrics
from pipeline.records.record import Delivery, Partition, Position, Record

BUSY, QUIET = Partition("busy", 0), Partition("quiet", 0)
NOW_S = 1_000_000.0


def test_a_topic_that_is_read_up_is_not_behind_while_another_is() -> None:
    registry, tracker = CollectorRegistry(), OffsetTracker()
    observer = IngestObserver(IngestMetrics(registry), wall_clock=lambda: NOW_S)
    for place in (QUIET, BUSY):
        tracker.assign(place)
    deliveries = [_delivery(tracker, QUIET, NOW_S - 86_400), _delivery(tracker, BUSY, NOW_S - 3)]
    observer.received(deliveries)
    tracker.finish([deliveries[0].receipt])
    tracker.advance()

    observer.turned(DeliveryBuffer(1, 1), tracker, {QUIET: 0, BUSY: 7})
    assert registry.get_sample_value("refract_lag_seconds", {"topic": "quiet"}) == 0.0
    assert registry.get_sample_value("refract_lag_seconds", {"topic": "busy"}) == 3.0

    tracker.finish([deliveries[1].receipt])
    observer.turned(DeliveryBuffer(1, 1), tracker, {QUIET: 0, BUSY: 0})
    assert registry.get_sample_value("refract_lag_seconds", {"topic": "busy"}) == 0.0


def test_every_topic_of_a_poll_is_noted_not_only_the_last() -> None:
    registry, tracker = CollectorRegistry(), OffsetTracker()
    observer = IngestObserver(IngestMetrics(registry), wall_clock=lambda: NOW_S)
    for place in (QUIET, BUSY):
        tracker.assign(place)
    observer.received([_delivery(tracker, QUIET, NOW_S - 60), _delivery(tracker, BUSY, NOW_S - 3)])
    observer.turned(DeliveryBuffer(1, 1), tracker, {})
    assert registry.get_sample_value("refract_lag_seconds", {"topic": "quiet"}) == 60.0


def test_payload_values_left_out_are_counted_by_field() -> None:
    registry, tracker = CollectorRegistry(), OffsetTracker()
    observer = IngestObserver(IngestMetrics(registry), wall_clock=lambda: NOW_S)
    tracker.assign(BUSY)
    plain = _delivery(tracker, BUSY, NOW_S)
    record = Record("s:a", 1, "x", {}, plain.position, dropped=("size", "created"))
    observer.received([plain, replace(plain, record=record), replace(plain, record=record)])
    counted = {
        field: registry.get_sample_value("refract_payload_values_dropped_total", {"topic": "busy", "field": field})
        for field in ("size", "created", "team")
    }
    assert counted == {"size": 2.0, "created": 2.0, "team": None}


def _delivery(tracker: OffsetTracker, place: Partition, produced_s: float) -> Delivery:
    position = Position(place.topic, place.number, 0, int(produced_s * 1000))
    return Delivery(tracker.add(place, 0), position, 1)
