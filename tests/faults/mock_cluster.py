"""librdkafka's mock cluster with its protocol errors on command: what a real broker answers once in a blue moon.

Its C functions are called through the library that confluent-kafka brings along
(`rdkafka_mock.h`). Records live in its memory: enough for a few hundred.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import files
from typing import Any

from kafka import KafkaAdminClient, TopicPartition

from pipeline.sources.mock_broker import API_VERSION

OFFSET_COMMIT = 8
"""Key of the request in Kafka's protocol."""

PRODUCER = 0
ERROR_BYTES = 512


@cache
def _library() -> ctypes.CDLL:
    """Returns librdkafka. Its functions take and return pointers, which ctypes would cut to integers."""
    found = [path for path in files("confluent-kafka") or () if path.name.startswith("librdkafka-")]
    library = ctypes.CDLL(str(found[0].locate()))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class MockCluster:
    """A running cluster. It has what the harness asks of a broker: its servers, an admin client, committed offsets."""

    def __init__(self, library: ctypes.CDLL, cluster: ctypes.c_void_p) -> None:
        self._library = library
        self._cluster = cluster
        self._partitions: list[TopicPartition] = []
        self.bootstrap_servers = str(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())

    @property
    def address(self) -> str:
        return self.bootstrap_servers

    def create_topic(self, topic: str, partitions: int) -> None:
        self._call("rd_kafka_mock_topic_create", topic.encode(), partitions, 1)
        self._partitions += [TopicPartition(topic, number) for number in range(partitions)]

    def move_coordinator(self, group: str, broker: int) -> None:
        """Makes another broker (1, 2, …) the group's coordinator; the old one answers NOT_COORDINATOR."""
        self._call("rd_kafka_mock_coordinator_set", b"group", group.encode(), broker)

    def fail(self, request: int, errors: Sequence[int]) -> None:
        """Answers the next requests of a kind with these errors, one each."""
        array = (ctypes.c_int * len(errors))(*errors)
        kind, count = ctypes.c_int16(request), ctypes.c_size_t(len(errors))
        self._call("rd_kafka_mock_push_request_errors_array", kind, count, array)

    def admin(self) -> Any:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, api_version=API_VERSION)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """The group's committed offsets."""
        admin = self.admin()
        try:
            # The mock does not know how to tell all of them at once.
            offsets = admin.list_group_offsets({group: self._partitions})[group]
        finally:
            admin.close()
        return {tuple(partition): known.offset for partition, known in offsets.items() if known.offset >= 0}

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(self._cluster, *arguments)
        assert code in (0, None), f"{name}: error {code}"


@contextmanager
def mock_cluster(brokers: int) -> Iterator[MockCluster]:
    """Runs a cluster in this process."""
    library = _library()
    error = ctypes.create_string_buffer(ERROR_BYTES)
    handle = library.rd_kafka_new(
        PRODUCER, ctypes.c_void_p(library.rd_kafka_conf_new()), error, ctypes.c_size_t(ERROR_BYTES)
    )
    assert handle, error.value
    handle = ctypes.c_void_p(handle)
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(handle, brokers))
    try:
        yield MockCluster(library, cluster)
    finally:
        with suppress(OSError):
            library.rd_kafka_mock_cluster_destroy(cluster)
            library.rd_kafka_destroy(handle)
