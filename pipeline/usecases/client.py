"""Talks to the running app over HTTP, as any other client would."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

import httpx

from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, RefractError, TransientError, nearest

_TIMEOUT_S = 30.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - read, to turn it into an address one can call


class StartingError(TransientError):
    """Ray Serve answers at the address, and has no route to the app yet: its proxy is up before the app is deployed."""


class AppClient:
    """The app of one configuration, at its `api.host` and `api.port`. Close it, or use it in a `with`."""

    def __init__(self, config: Config, transport: httpx.BaseTransport | None = None) -> None:
        self._tasks = config.tasks
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

    def status(self) -> dict[str, Any]:
        """Returns what the app is doing, as `/v1/status` answers. Raises like `search`."""
        state: dict[str, Any] = self._call("GET", "/v1/status", None)
        return state

    def search(
        self,
        task: str,
        *,
        text: str | None = None,
        key: str | int | None = None,
        limit: int = 10,
        filters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the hits, as `/v1/search` answers.

        Args:
            task: The task whose collection is searched.
            text: What to look for.
            key: Instead of a text: the key of a record whose neighbours to look for.
            limit: How many hits.
            filters: Payload field -> a value, or a list of values of which one must match.

        Raises:
            TransientError: nothing answers, or the app is not able to answer now.
            ConfigError: no such task, or the app refuses the key of this configuration.
            RefractError: the app refuses the request; the message is the app's.
        """
        if task not in self._tasks:
            raise ConfigError(f"no task {task!r}.{nearest(task, self._tasks)} Tasks: {', '.join(self._tasks)}")
        body = {"task": task, "limit": limit, "filter": dict(filters or {})}
        found: dict[str, Any] = self._call(
            "POST", "/v1/search", body | ({"text": text} if key is None else {"id": key})
        )
        return found

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TimeoutException:
            raise TransientError(f"the app at {self.url} did not answer within {_TIMEOUT_S:.0f} s") from None
        except UnicodeEncodeError:
            raise ConfigError("the text, the key or a filter is not UTF-8") from None
        except httpx.TransportError:
            raise TransientError(
                f"no app answers at {self.url} (api.host and api.port of this file). Start it with: refract run CONFIG"
            ) from None
        if answer.is_success:
            return self._json(answer)
        if answer.status_code in {401, 403}:
            raise ConfigError(f"the app at {self.url} refuses the key: set api.api_key to the one it was started with")
        if answer.status_code == HTTPStatus.NOT_FOUND and not _is_ours(answer):
            raise StartingError(f"the app at {self.url} is starting: Ray Serve has no route to it yet")
        message = f"{self.url}{path} answered {answer.status_code}: {_reason(answer)}"
        if answer.status_code in {429, 502, 503, 504}:
            raise TransientError(message)
        raise RefractError(message)

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise RefractError(f"what answers at {self.url} is not this app: its answer is not JSON") from None


def app_answers(config: Config) -> bool:
    """Whether an app answers at the configuration's address, even if only to refuse."""
    try:
        with AppClient(config) as app:
            app.status()
    except StartingError:
        return True
    except TransientError:
        return False
    except RefractError:
        return True
    return True


def _is_ours(answer: httpx.Response) -> bool:
    """Whether a refusal has the API's form."""
    try:
        return "error" in answer.json()
    except (ValueError, TypeError):
        return False


def _reason(answer: httpx.Response) -> str:
    """The message in the API's error body; the HTTP phrase where there is none."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase or "no reason given"
