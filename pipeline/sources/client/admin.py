"""Asks a cluster about itself before anything is read: reachability, topics, the dead-letter topic, codecs, lag."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.protocol.consumer import IsolationLevel
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, EnvironmentFault, nearest
from pipeline.records.record import Partition
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.client.connection import client_settings, connect

DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000
"""Kafka's default of a week may be over before anybody looks."""

GROUP_TIMEOUT_S = 8.0

CODECS: Mapping[str, str] = {"lz4": "lz4", "snappy": "snappy", "zstd": "zstandard", "crc32c": "crc32c"}
"""What the client needs -> a module that provides it. A missing one is noticed at the first batch that uses it."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far the group is with one partition."""

    committed: int | None
    """Next offset to read; None before the first commit."""
    end: int
    """Offset of the next committed record to come (the last stable offset)."""
    begin: int

    @property
    def lag(self) -> int:
        """Records between the committed offset, or the beginning, and the end."""
        return max(0, self.end - (self.begin if self.committed is None else self.committed))


@contextmanager
def open_admin(config: SourceConfig, doing: str) -> Iterator[Any]:
    """Connects an admin client; its errors inside become those of `pipeline.errors`. `doing` says what failed."""
    admin = connect(KafkaAdminClient, client_settings(config, "admin"), config)
    try:
        yield admin
    except kafka_errors.KafkaError as error:
        raise error_from_kafka(error, doing, config) from error
    finally:
        admin.close()


def inspect_cluster(config: SourceConfig) -> dict[str, Any]:
    """Returns the facts of the cluster that `refract check` prints.

    Keys: `brokers` (count), `version` (that the brokers' protocol implies), `codecs`, `topics` (name
    -> partitions) and `dead_letter_topic` (what will happen with it).

    Raises:
        ConfigError: a codec, a topic, or the dead-letter topic is missing and cannot be created.
        TransientError: no broker answers.
        EnvironmentFault: the brokers refuse this client.
    """
    codecs = check_codecs()
    with open_admin(config, "looking at the cluster") as admin:
        cluster = admin.describe_cluster()
        names = [*config.topics, config.dead_letter_topic]
        found = {name: count for name in names if (count := _count_partitions(admin, name))}
        missing = [name for name in config.topics if name not in found]
        if missing:
            raise ConfigError(_explain_missing(missing[0], admin))
        return {
            "brokers": len(cluster["brokers"]),
            "version": _version(admin, cluster),
            "codecs": codecs,
            "topics": {name: found[name] for name in config.topics},
            "dead_letter_topic": _check_dead_letter_topic(admin, config, found.get(config.dead_letter_topic)),
        }


def check_codecs() -> list[str]:
    """Returns the names of the installed codecs. Raises ConfigError when one is missing."""
    missing = [name for name, module in CODECS.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{missing[0]} is not installed: pip install 'kafka-python[lz4,snappy,zstd]' crc32c")
    return [*CODECS, "gzip"]


def create_topics(
    config: SourceConfig, partitions: int | Mapping[str, int], *, configs: Mapping[str, str] | None = None
) -> None:
    """Creates the missing source topics with the given numbers of partitions, and the dead-letter topic."""
    with open_admin(config, "creating topics") as admin:
        for topic in config.topics:
            if not topic_exists(admin, topic):
                count = partitions if isinstance(partitions, int) else partitions[topic]
                _create(admin, topic, count, configs or {})
        if not topic_exists(admin, config.dead_letter_topic):
            create_dead_letter_topic(admin, config.dead_letter_topic)


def create_dead_letter_topic(admin: Any, topic: str) -> None:
    """Creates the dead-letter topic: one partition, the brokers' replication, ninety days. Raises KafkaError."""
    _create(admin, topic, 1, {"retention.ms": str(DEAD_LETTER_RETENTION_MS), "cleanup.policy": "delete"})


def topic_exists(admin: Any, topic: str) -> bool:
    """Whether the topic is there and visible to this client."""
    return _count_partitions(admin, topic) > 0


def committed_lag(config: SourceConfig) -> dict[Partition, PartitionLag]:
    """Returns the group's position in every partition of the source topics, as the brokers know it now."""
    with open_admin(config, "asking for lag") as admin:
        partitions = partitions_of(admin, config.topics)
        committed = group_offsets(admin, config.group_id, partitions)
        ends = partition_offsets(admin, partitions, OffsetSpec.LATEST)
        begins = partition_offsets(admin, partitions, OffsetSpec.EARLIEST)
    lags = {}
    for topic_partition in partitions:
        known = committed.get(topic_partition)
        offset = known.offset if known is not None and known.offset >= 0 else None
        lags[Partition(*topic_partition)] = PartitionLag(offset, ends[topic_partition], begins[topic_partition])
    return lags


def partitions_of(admin: Any, topics: Iterable[str]) -> list[TopicPartition]:
    """Returns all partitions of the topics. Raises ConfigError for a topic that is not there, and KafkaError."""
    counts = {topic: _count_partitions(admin, topic) for topic in topics}
    missing = [topic for topic, count in counts.items() if not count]
    if missing:
        raise ConfigError(_explain_missing(missing[0], admin))
    return [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]


@retry(
    retry=retry_if_exception(lambda error: getattr(error, "retriable", False)),
    wait=wait_fixed(0.2),
    stop=stop_after_delay(GROUP_TIMEOUT_S),
    reraise=True,
)
def group_offsets(admin: Any, group: str, partitions: list[TopicPartition]) -> Mapping[TopicPartition, Any]:
    """Returns the group's committed offsets and their metadata; a partition without a commit is absent, or below zero.

    Asks until the group's coordinator is there: a cluster's first group waits for its offsets topic.
    """
    offsets: Mapping[TopicPartition, Any] = admin.list_group_offsets({group: partitions}).get(group, {})
    return offsets


def cleanup_policy(admin: Any, topic: str) -> str:
    """Returns the topic's `cleanup.policy`; "delete", Kafka's default, where the brokers do not say."""
    try:
        found = _setting(admin, topic, "cleanup.policy")
    except (kafka_errors.AuthorizationError, kafka_errors.UnsupportedVersionError, kafka_errors.KafkaConnectionError):
        return "delete"  # unknown: brokers hang up on requests they do not know
    return "delete" if found is None else found


def delete_retention_ms(config: SourceConfig) -> dict[str, int]:
    """Returns for how long each source topic keeps a delete marker after it is compacted, in milliseconds.

    Raises:
        ConfigError: a topic does not exist.
        EnvironmentFault: the brokers do not say.
        TransientError: they do not answer.
    """
    with open_admin(config, "asking for delete.retention.ms") as admin:
        partitions_of(admin, config.topics)
        found = {topic: _setting(admin, topic, "delete.retention.ms") for topic in config.topics}
    unknown = next((topic for topic, value in found.items() if value is None), None)
    if unknown is not None:
        raise EnvironmentFault(
            f"topic {unknown!r}: the brokers do not say its delete.retention.ms; this client needs to describe its "
            "configuration"
        )
    return {topic: int(value or 0) for topic, value in found.items()}


def partition_offsets(admin: Any, partitions: list[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
    """Returns an offset per partition: the first or last of committed records, or the first since a time in ms."""
    answers = admin.list_partition_offsets(
        dict.fromkeys(partitions, spec), isolation_level=IsolationLevel.READ_COMMITTED
    )
    return {topic_partition: int(answers[topic_partition].offset) for topic_partition in partitions}


def _setting(admin: Any, topic: str, name: str) -> str | None:
    """Returns a topic's setting; None where the brokers do not have it. Raises KafkaError."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: None})
    described = admin.describe_configs([resource], config_filter="all")
    found = described["topic"][topic].get(name, {}).get("value")
    return None if found is None else str(found)


def _create(admin: Any, topic: str, count: int, configs: Mapping[str, str]) -> None:
    try:
        # A replication factor of -1 is the brokers' default, and unknown before Kafka 2.4.
        admin.create_topics(
            {topic: {"num_partitions": count, "replication_factor": -1, "configs": dict(configs)}},
            wait_for_metadata=True,
        )
    except kafka_errors.TopicAlreadyExistsError:
        admin.wait_for_topics([topic])  # somebody else was faster


def _count_partitions(admin: Any, topic: str) -> int:
    described = [found for found in admin.describe_topics([topic]) if found["name"] == topic]
    if not described:
        return 0
    error = kafka_errors.for_code(described[0]["error_code"])
    if error is kafka_errors.NoError or error is kafka_errors.LeaderNotAvailableError:
        return len(described[0]["partitions"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return 0
    raise error(topic)


def _explain_missing(topic: str, admin: Any) -> str:
    return (
        f"source.topics.{topic}: the cluster has no such topic, or this client may not see it."
        f"{nearest(topic, (name for name in admin.list_topics() if not name.startswith('__')))}"
    )


def _version(admin: Any, cluster: Mapping[str, Any]) -> str:
    """Returns the version that the protocol of one broker implies."""
    data = admin.get_broker_version_data(cluster["brokers"][0]["broker_id"])
    return ".".join(map(str, data.broker_version))


def _check_dead_letter_topic(admin: Any, config: SourceConfig, count: int | None) -> str:
    topic = config.dead_letter_topic
    if count:
        if cleanup_policy(admin, topic) == "compact":
            raise ConfigError(
                f"source.dead_letter_topic: {topic!r} is compacted, so letters of one key would remove each other; "
                f"set its cleanup.policy to delete"
            )
        return f"exists, {count} partition{'s' if count > 1 else ''}"
    try:
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": -1}}, validate_only=True)
    except kafka_errors.UnsupportedVersionError:
        return "missing; such old brokers do not say whether it can be created"
    except kafka_errors.KafkaError as error:
        raise ConfigError(
            f"source.dead_letter_topic: {topic!r} is missing and this client may not create it "
            f"({type(error).__name__}); create it first"
        ) from error
    return "will be created"
