"""One connection to a Qdrant server: calls with a deadline and credentials, and their errors."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import grpc
from qdrant_client import grpc as qdrant

from pipeline.config.store import QdrantStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault, UnknownOutcomeError
from pipeline.records.digits import whole_number
from pipeline.stores.grpc_errors import error_from_grpc

DEFAULT_PORT = 6334
MIN_VERSION = (1, 19)
"""Earlier servers evaluate the guard again when they replay their log, and may bring old points back (#9575)."""

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # After an outage the next attempt comes within seconds, not within the default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # A silently dropped connection is noticed although nothing is being sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Repeating is the worker's decision, with its own back-off.
    ("grpc.enable_retries", 0),
]


class QdrantConnection:
    """A channel and its calls. Thread-safe. Every call ends within `timeout_s`."""

    def __init__(self, config: QdrantStoreConfig) -> None:
        """Prepares the channel; nothing is sent yet.

        Raises ConfigError for an address or a CA file that cannot be used.
        """
        self._timeout_s = config.timeout_s
        self._metadata = (("api-key", config.api_key.get_secret_value()),) if config.api_key else ()
        self._channel = _channel(config)
        self.points = qdrant.PointsStub(self._channel)  # type: ignore[no-untyped-call]  # generated code
        self.collections = qdrant.CollectionsStub(self._channel)  # type: ignore[no-untyped-call]  # generated code
        self._health = qdrant.QdrantStub(self._channel).HealthCheck  # type: ignore[no-untyped-call]  # generated code
        self._upsert = self._channel.unary_unary(
            "/qdrant.Points/Upsert",
            request_serializer=None,
            response_deserializer=qdrant.PointsOperationResponse.FromString,
        )
        self._get = self._channel.unary_unary(
            "/qdrant.Points/Get", request_serializer=None, response_deserializer=qdrant.GetResponse.FromString
        )

    def call(self, method: Callable[..., Any], request: object, doing: str) -> Any:
        """Returns the answer; raises what `error_from_grpc` makes of a failure."""
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_from_grpc(error, doing) from error

    def start_get(self, request: bytes) -> grpc.Future:
        """Sends a serialised GetPoints and returns at once; `result` waits for its answer."""
        return self._get.future(request, timeout=self._timeout_s, metadata=self._metadata)

    def result(self, future: grpc.Future, doing: str) -> Any:
        """Returns the answer of a call already sent; raises what `error_from_grpc` makes of a failure."""
        try:
            return future.result()
        except grpc.RpcError as error:
            raise error_from_grpc(error, doing) from error

    def upsert(self, request: bytes, doing: str, num_points: int) -> None:
        """Sends a serialised UpsertPoints and returns when the server has applied it.

        Raises UnknownOutcomeError for every status except Completed: an acknowledged write is not applied
        yet, and one whose wait timed out may or may not be.
        """
        try:
            answer = self._upsert(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_from_grpc(error, doing, num_points) from error
        check_completed(answer, doing)

    def version(self) -> str:
        """Returns the server's version, when it is one this pipeline can trust.

        Raises EnvironmentFault for an earlier one.
        """
        answer = self.call(self._health, qdrant.HealthCheckRequest(), "asking the store for its version")
        found = str(answer.version)
        if _numbers(found) < MIN_VERSION:
            raise EnvironmentFault(
                f"the Qdrant server has version {found!r}; {'.'.join(map(str, MIN_VERSION))} or later is needed: "
                f"earlier ones may bring old points back after a crash"
            )
        return found

    def close(self) -> None:
        """Cuts the connection; calls under way fail."""
        self._channel.close()


def check_completed(answer: qdrant.PointsOperationResponse, doing: str) -> None:
    """Raises UnknownOutcomeError unless the server says that the operation was applied."""
    status = answer.result.status
    if status != qdrant.UpdateStatus.Completed:
        raise UnknownOutcomeError(f"{doing}: the server answered {qdrant.UpdateStatus.Name(status)}, not Completed")


def _channel(config: QdrantStoreConfig) -> grpc.Channel:
    parts = urlsplit(config.url)
    if not parts.hostname or parts.path.strip("/"):
        raise ConfigError(f"store.url {config.url!r}: expected http(s)://host:port of the gRPC port, without a path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{parts.port or DEFAULT_PORT}"
    if parts.scheme == "http":
        return grpc.insecure_channel(address, OPTIONS)
    try:
        authority = config.ca_file.read_bytes() if config.ca_file else None
    except OSError as error:
        raise ConfigError(f"store.ca_file {str(config.ca_file)!r} cannot be read: {error.strerror}") from error
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates=authority), OPTIONS)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("-", maxsplit=1)[0].split("."):
        number = whole_number(part)
        if number is None:
            break
        numbers.append(number)
    return tuple(numbers)
