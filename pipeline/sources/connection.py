"""How every Kafka client of this package connects, and what its errors mean in `pipeline.errors`."""

import threading
import time
from typing import Any

import httpx
import kafka.errors as kafka_errors
from kafka.net.sasl.oauth import AbstractTokenProvider

from pipeline.config.source import SecurityConfig, SourceConfig
from pipeline.errors import EnvironmentFault, RefractError, TransientError

BOOTSTRAP_TIMEOUT_MS = 8_000
"""Longest wait for a first answer from any broker; then the caller backs off and tries again."""

REQUEST_TIMEOUT_MS = 15_000
"""Longest wait for one answer. Kafka's default of 30 s only delays the next attempt."""

RECONNECT_BACKOFF_MAX_MS = 3_000
"""Kafka's default of 30 s would leave a broker that came back unused for half a minute."""

_TOKEN_MARGIN_S = 30.0

_NEED_A_PERSON = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.UnrecognizedBrokerVersion,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.GroupMaxSizeReachedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
    kafka_errors.OffsetMetadataTooLargeError,
    kafka_errors.InvalidRequiredAcksError,
)
"""Errors that no repetition mends."""


def client_settings(config: SourceConfig, role: str) -> dict[str, Any]:
    """Returns the arguments that consumers, producers and admin clients share.

    Secrets leave their `SecretStr` here and nowhere else; do not log the result. `role` ends the
    client id, so that the brokers' logs and quotas tell the clients apart.
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


def _security_settings(security: SecurityConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.endswith("SSL"):
        settings |= {
            "ssl_check_hostname": security.check_hostname,
            "ssl_cafile": str(security.ca_file) if security.ca_file else None,
            "ssl_certfile": str(security.cert_file) if security.cert_file else None,
            "ssl_keyfile": str(security.key_file) if security.key_file else None,
            "ssl_password": security.key_password.get_secret_value() if security.key_password else None,
        }
    if security.sasl_mechanism is None:
        return settings
    settings["sasl_mechanism"] = security.sasl_mechanism
    if security.sasl_mechanism == "OAUTHBEARER":
        settings["sasl_oauth_token_provider"] = ClientCredentials(security)
    else:
        settings["sasl_plain_username"] = security.username
        settings["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    return settings


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python ships no types
    """Fetches OAuth tokens by the client-credentials grant (RFC 6749 §4.4) and keeps each until it nears its end.

    Called by the client's IO thread whenever a connection is made.
    """

    def __init__(self, security: SecurityConfig) -> None:
        super().__init__()
        self._security = security
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0.0

    def token(self) -> str:
        """Returns a token that is valid for some time yet. Raises SaslAuthenticationFailedError."""
        with self._lock:
            if time.monotonic() >= self._expires_at:
                self._fetch()
            return self._token

    def _fetch(self) -> None:
        security = self._security
        secret = security.oauth_client_secret.get_secret_value() if security.oauth_client_secret else ""
        form = {"grant_type": "client_credentials"}
        if security.oauth_scope:
            form["scope"] = security.oauth_scope
        try:
            answer = httpx.post(
                security.oauth_token_url or "", data=form, auth=(security.oauth_client_id or "", secret), timeout=10.0
            )
            answer.raise_for_status()
            grant = answer.json()
            self._token = str(grant["access_token"])
            lifetime_s = float(grant.get("expires_in", 300))
        except httpx.HTTPStatusError as error:
            raise kafka_errors.SaslAuthenticationFailedError(
                f"the token endpoint answered {error.response.status_code}"
            ) from None
        except httpx.HTTPError as error:
            raise kafka_errors.KafkaConnectionError(f"the token endpoint: {type(error).__name__}") from None
        except (KeyError, TypeError, ValueError):
            raise kafka_errors.SaslAuthenticationFailedError("the token endpoint's answer holds no token") from None
        self._expires_at = time.monotonic() + max(lifetime_s - _TOKEN_MARGIN_S, lifetime_s / 2)


def translate(error: BaseException, doing: str, config: SourceConfig) -> RefractError:
    """Returns the error of `pipeline.errors` that `error` is. `doing` says what failed, as in "reading".

    Raise it `from` the original where that adds something; its message names the brokers, not the data.
    """
    brokers = ", ".join(config.bootstrap_servers)
    said = f"{type(error).__name__}" + (f" ({text})" if (text := _first_line(error)) else "")
    message = f"{doing}: {said}; brokers {brokers}"
    if isinstance(error, _NEED_A_PERSON):
        return EnvironmentFault(f"{message}{_advice(error, config)}")
    if isinstance(error, kafka_errors.KafkaError | OSError):
        return TransientError(message)
    return EnvironmentFault(f"{message}; this is unexpected")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]


def _advice(error: BaseException, config: SourceConfig) -> str:
    if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
        return f"; check source.security for {config.security.sasl_mechanism}"
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        return f"; the principal needs READ on group {config.group_id!r}"
    if isinstance(error, kafka_errors.AuthorizationError):
        return "; the principal needs READ on the topics and WRITE on the dead-letter topic"
    if isinstance(error, kafka_errors.FencedInstanceIdError):
        return f"; another process runs under group_instance_id {config.group_instance_id!r} with the same number"
    if isinstance(error, kafka_errors.InconsistentGroupProtocolError):
        return f"; group {config.group_id!r} has members with another assignment strategy than cooperative-sticky"
    return ""
