"""Talks to the running app over HTTP, as any other client would."""

from typing import Any, Self

import httpx

from pipeline.config.app import Config
from pipeline.errors import ConfigError, RefractError, TransientError

_TIMEOUT_S = 30.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - read, to turn it into an address one can call


class AppClient:
    """The app of one configuration, at its `api.host` and `api.port`. Close it, or use it in a `with`."""

    def __init__(self, config: Config, transport: httpx.BaseTransport | None = None) -> None:
        host = config.api.host
        host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"http://{host}:{config.api.port}"
        key = config.api.api_key
        # trust_env off: a proxy set for the internet must not be asked for an app on this machine.
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if key is None else {"api-key": key.get_secret_value()},
            timeout=_TIMEOUT_S,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the connections."""
        self._http.close()

    def get(self, path: str) -> Any:
        """Returns the JSON behind a path. Raises like `post`."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Sends JSON and returns the JSON of the answer.

        Raises:
            TransientError: nothing answers, or the app says it cannot just now.
            ConfigError: the app refuses the key of this configuration.
            RefractError: the app refuses the request; the message is the app's.
        """
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TimeoutException:
            raise TransientError(f"the app at {self.url} did not answer within {_TIMEOUT_S:.0f} s") from None
        except httpx.TransportError:
            raise TransientError(
                f"no app answers at {self.url} (api.host and api.port of this file). Start it with: refract run CONFIG"
            ) from None
        if answer.is_success:
            return self._json(answer)
        if answer.status_code in {401, 403}:
            raise ConfigError(f"the app at {self.url} refuses the key: set api.api_key to the one it was started with")
        message = f"{self.url}{path} answered {answer.status_code}: {_reason(answer)}"
        if answer.status_code in {429, 502, 503, 504}:
            raise TransientError(message)
        raise RefractError(message)

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise RefractError(f"what answers at {self.url} is not this app: it sent no JSON") from None


def _reason(answer: httpx.Response) -> str:
    """The message in the API's error body; the HTTP phrase where there is none."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase or "no reason given"
