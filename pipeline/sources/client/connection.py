"""How every Kafka client of this package connects."""

import ssl
from collections.abc import Callable
from typing import Any

import kafka.errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from pipeline.config.security import SecurityConfig
from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.sources.client.broker_errors import error_from_kafka
from pipeline.sources.client.header_names import read_any_header_name
from pipeline.sources.client.inflate import bound_inflation
from pipeline.sources.client.oauth import ClientCredentials

BOOTSTRAP_TIMEOUT_MS = 8_000
"""Longest wait for a first answer from any broker; then the caller backs off and tries again."""

REQUEST_TIMEOUT_MS = 15_000
"""Longest wait for one answer. Kafka's default of 30 s only delays the next attempt."""

RECONNECT_BACKOFF_MAX_MS = 3_000
"""Kafka's default of 30 s would leave a broker that came back unused for half a minute."""

MAX_REFUSALS = 3
"""A starting broker may refuse good credentials once or twice, before it has read them."""


def connect(make: Callable[..., Any], settings: dict[str, Any], config: SourceConfig) -> Any:
    """Returns a connected client of kafka-python: `make(**settings)`.

    A constructor that fails leaves its IO thread and four file descriptors behind; here they are
    freed. It also says no more than "timed out"; here the last connection's own error decides.
    What it reads is bounded here, too: see `pipeline.sources.client.inflate`.

    Raises:
        TransientError: no broker answers.
        EnvironmentFault: the brokers refuse this client, or their certificate is refused.
    """
    read_any_header_name()
    bound_inflation(config.max_inflated_batch_bytes)
    clients: list[_Client] = []

    def make_client(**configs: Any) -> _Client:
        clients.append(_Client(**configs))
        return clients[-1]

    try:
        return make(**settings, kafka_client=make_client)
    except (kafka_errors.KafkaError, OSError) as error:
        for client in clients:
            client.close()
        causes = [client.last_error for client in clients if client.last_error is not None]
        meaning = error_from_kafka(causes[-1] if causes else error, "connecting to Kafka", config)
        if isinstance(meaning, EnvironmentFault):
            raise meaning from error
        raise error_from_kafka(error, "connecting to Kafka", config) from error


def client_settings(config: SourceConfig, role: str) -> dict[str, Any]:
    """Returns the arguments that consumers, producers and admin clients share.

    Secrets leave their `SecretStr` here and nowhere else; do not log the result. `role` ends the
    client id, so that the brokers' logs and quotas tell the clients apart. Raises ConfigError for
    unusable certificate files.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "client_id": f"{config.client_id}-{role}",
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        **_security_settings(config.security),
    }
    if config.api_version is not None:
        settings["api_version"] = tuple(config.api_version)
    return settings


class _Client(KafkaNetClient):  # type: ignore[misc]  # kafka-python ships no types
    """The client's network half, as it makes its own, with a memory for the last failed connection."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        super().__init__(net, _Manager(net, **configs), **configs)

    @property
    def last_error(self) -> BaseException | None:
        error: BaseException | None = self._manager.last_error
        return error


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python ships no types
    last_error: BaseException | None = None
    _num_refused = 0

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> Any:
        # The client repeats refused credentials until its time is over.
        if self._num_refused >= MAX_REFUSALS and self.last_error is not None:
            raise self.last_error
        connection = super().get_connection(node_id, *args, **options)
        if not connection.init_future.is_done:
            connection.init_future.add_callback(self._forget)
            connection.init_future.add_errback(self._remember)
        return connection

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        """Lets a connection read what came before its end.

        The client drops bytes that arrive together with the end of the stream, and a broker that
        refuses credentials sends its reason just so. The end is there again at the next read.
        """
        transport = await super()._build_transport(*args, **options)
        receive = transport._sock_recv  # noqa: SLF001 - see above

        def receive_before_end() -> tuple[bytes, BaseException | None]:
            received, error = receive()
            return received, None if received else error

        transport._sock_recv = receive_before_end  # noqa: SLF001 - see above
        return transport

    def _forget(self, _connected: object) -> None:
        self._num_refused = 0
        self.last_error = None

    def _remember(self, error: BaseException) -> None:
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
            self._num_refused += 1
            self.last_error = error
        elif not self._num_refused:
            self.last_error = error


def _security_settings(security: SecurityConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.endswith("SSL"):
        settings["ssl_context"] = _tls_context(security)
    if security.sasl_mechanism is None:
        return settings
    settings["sasl_mechanism"] = security.sasl_mechanism
    if security.sasl_mechanism == "OAUTHBEARER":
        settings["sasl_oauth_token_provider"] = ClientCredentials(security)
    else:
        settings["sasl_plain_username"] = _user_name(security)
        settings["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    return settings


def _user_name(security: SecurityConfig) -> str | None:
    """Returns the name as the client must be given it: SCRAM's messages use commas and equals signs (RFC 5802, 5.1)."""
    name = security.username
    if name is None or not str(security.sasl_mechanism).startswith("SCRAM"):
        return name
    return name.replace("=", "=3D").replace(",", "=2C")


def _tls_context(security: SecurityConfig) -> ssl.SSLContext:
    """Builds the context here, so that an unreadable file is named at the start and not as a failed handshake."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.check_hostname
    if security.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(security.ca_file))
            context.check_hostname = security.check_hostname
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"source.security.ca_file: {security.ca_file}: {error}") from error
    if security.cert_file is not None and security.key_file is not None:
        password = security.key_password.get_secret_value() if security.key_password else ""
        try:
            context.load_cert_chain(str(security.cert_file), str(security.key_file), password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"source.security.cert_file and key_file: {security.cert_file}, {security.key_file}: {error}"
            ) from error
    return context
