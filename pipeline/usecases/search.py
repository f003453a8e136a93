"""Searches from this process: straight in the store, or through the running app where that holds an embedded one."""

from pipeline.context import Context
from pipeline.errors import ConfigError, EnvironmentFault, RefractError
from pipeline.filters import Filters
from pipeline.interfaces import Store
from pipeline.searcher import Hit, Searcher
from pipeline.usecases.client import AppClient

MAX_LIMIT = 100_000
"""Hits of one search from this process; the API has a bound of its own, `api.max_limit`."""


class StoreSearch:
    """Searches the configured store. Opens it when it is first asked; close it afterwards. One thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store: Store | None = None
        self._app: AppClient | None = None

    def hits(self, task: str, text: str | None, key: str | int | None, limit: int, filters: Filters) -> list[Hit]:
        """Returns the records most similar to a text, or to the stored record of a key, by falling score.

        Raises ConfigError for an unknown task, or unless exactly one of text and key is given, or for a
        limit that is out of range; else like `Searcher`.
        """
        self._context.task(task)
        if (text is None) == (key is None):
            raise ConfigError("give either a text or the key of a record")
        if not 1 <= limit <= MAX_LIMIT:
            raise ConfigError(f"limit: expected a whole number from 1 to {MAX_LIMIT:,}")
        searcher = self._searcher()
        if searcher is None:
            return self._ask_app(task, text, key, limit, filters)
        if text is not None:
            return searcher.by_text(task, text, limit, filters)
        return searcher.by_key(task, key if key is not None else "", limit, filters)

    def close(self) -> None:
        """Frees the store. Safe to call twice; the next search opens it again."""
        if self._store is not None:
            self._store.close()
        if self._app is not None:
            self._app.close()
        self._store = self._app = None

    def _searcher(self) -> Searcher | None:
        """Returns what searches the store, or None where the running app holds it."""
        if self._app is not None:
            return None
        if self._store is None:
            try:
                self._store = self._context.open_store()
            except EnvironmentFault as fault:
                self._app = self._running_app(fault)
                return None
        return Searcher.of(self._context, self._context.embedder, self._store)

    def _running_app(self, fault: EnvironmentFault) -> AppClient:
        """Returns the app of this configuration. Raises the fault where it is not the app that holds the store."""
        app = AppClient(self._context.config)
        try:
            is_ours = app.status().get("pipeline") == self._context.config.pipeline
        except RefractError:
            is_ours = False
        if not is_ours:
            app.close()
            raise fault
        return app

    def _ask_app(self, task: str, text: str | None, key: str | int | None, limit: int, filters: Filters) -> list[Hit]:
        assert self._app is not None  # noqa: S101 - found by `_searcher`
        answer = self._app.search(task, text=text, key=key, limit=limit, filters=filters)
        return [Hit(**hit) for hit in answer["hits"]]
