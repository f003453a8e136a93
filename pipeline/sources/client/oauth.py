"""Exchanges client credentials for the tokens of SASL OAUTHBEARER."""

import threading
import time

import httpx
import kafka.errors as kafka_errors
from kafka.net.sasl.oauth import AbstractTokenProvider

from pipeline.config.security import SecurityConfig

TIMEOUT_S = 5.0
"""The client's IO thread waits for the answer, and heartbeats wait with it."""

_MARGIN_S = 30.0
"""A token is replaced this long before it expires."""


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python ships no types
    """Fetches tokens by the client-credentials grant (RFC 6749 §4.4) and keeps each until shortly before it expires.

    Called by the client's IO thread whenever a connection is made.
    """

    def __init__(self, security: SecurityConfig) -> None:
        super().__init__()
        self._security = security
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0.0

    def token(self) -> str:
        """Returns a token that stays valid for a while. Raises SaslAuthenticationFailedError."""
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
                security.oauth_token_url or "",
                data=form,
                auth=(security.oauth_client_id or "", secret),
                timeout=TIMEOUT_S,
            )
            answer.raise_for_status()
            grant = answer.json()
            self._token = str(grant["access_token"])
            lifetime_s = float(grant.get("expires_in", 300))
        except httpx.HTTPStatusError as error:
            said = f"the token endpoint answered {error.response.status_code}"
            if error.response.is_server_error:
                raise kafka_errors.KafkaConnectionError(said) from None
            raise kafka_errors.SaslAuthenticationFailedError(said) from None
        except httpx.HTTPError as error:
            raise kafka_errors.KafkaConnectionError(f"the token endpoint: {type(error).__name__}") from None
        except (KeyError, TypeError, ValueError):
            raise kafka_errors.SaslAuthenticationFailedError("the token endpoint's answer holds no token") from None
        self._expires_at = time.monotonic() + max(lifetime_s - _MARGIN_S, lifetime_s / 2)
