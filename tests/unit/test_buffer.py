"""The buffer between the poll loop and the batch threads."""

from threading import Thread

from pipeline.live.buffer import DELIVERY_BYTES, DeliveryBuffer
from pipeline.records.record import Delivery, Partition, Position, Receipt


def delivery(topic: str = "tickets", offset: int = 0, num_bytes: int = 10) -> Delivery:
    receipt = Receipt(Partition(topic, 0), offset, 1, 0.0)
    return Delivery(receipt, Position(topic, 0, offset, 0), num_bytes)


def test_batch_takes_everything_that_waits_up_to_the_bound() -> None:
    buffer = DeliveryBuffer(1_000, max_batch_records=2)
    buffer.put([delivery(offset=offset) for offset in range(3)])
    assert [taken.position.offset for taken in buffer.take(0)] == [0, 1]
    assert [taken.position.offset for taken in buffer.take(0)] == [2]
    assert buffer.take(0) == []


def test_batch_holds_one_topic_and_topics_are_served_by_age() -> None:
    buffer = DeliveryBuffer(1_000, max_batch_records=10)
    buffer.put([delivery("b", 0), delivery("a", 0), delivery("b", 1)])
    assert [(taken.position.topic, taken.position.offset) for taken in buffer.take(0)] == [("b", 0), ("b", 1)]
    assert [taken.position.topic for taken in buffer.take(0)] == ["a"]


def test_bytes_count_until_released_and_not_only_until_taken() -> None:
    buffer = DeliveryBuffer(20 + 2 * DELIVERY_BYTES, max_batch_records=10)
    buffer.put([delivery(num_bytes=15), delivery(offset=1, num_bytes=15)])
    taken = buffer.take(0)
    assert (buffer.full, buffer.num_bytes) == (True, 30 + 2 * DELIVERY_BYTES)
    buffer.release(taken)
    assert (buffer.full, buffer.num_bytes) == (False, 0)


def test_small_records_fill_the_buffer_by_what_carries_them() -> None:
    buffer = DeliveryBuffer(100 * DELIVERY_BYTES, max_batch_records=10)
    buffer.put([delivery(offset=offset, num_bytes=1) for offset in range(99)])
    assert not buffer.full
    buffer.put([delivery(offset=99, num_bytes=1)])
    assert buffer.full


def test_take_wakes_up_for_a_delivery() -> None:
    buffer = DeliveryBuffer(1_000, 10)
    taken: list[Delivery] = []
    thread = Thread(target=lambda: taken.extend(buffer.take(30)))
    thread.start()
    buffer.put([delivery()])
    thread.join(5)
    assert len(taken) == 1


def test_close_drops_what_waits_and_wakes_takers() -> None:
    buffer = DeliveryBuffer(1_000, 10)
    buffer.put([delivery()])
    buffer.close()
    assert buffer.take(30) == []
