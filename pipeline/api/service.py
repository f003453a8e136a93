"""What the HTTP API answers, without HTTP: searches, embeddings, tasks, and the state of the whole app."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from pipeline.api.models import EmbeddingsRequest, SearchRequest, SearchResponse, TaskResponse
from pipeline.api.status import readiness, status
from pipeline.context import Context
from pipeline.interfaces import Embedder, PointReader
from pipeline.metrics import ApiMetrics, AppMetrics, ReplicaReport, SnapshotCollector
from pipeline.searcher import Embedded, QueryError, Searcher

Reports = Callable[[], Awaitable[list[ReplicaReport]]]
"""Returns the latest report of every replica of the app."""


class ApiService:
    """Answers for one configuration. Thread-safe; `status`, `readiness` and `metrics_text` run in the event loop.

    Every method raises QueryError for what the caller got wrong, and the classes of `pipeline.errors` for what is
    wrong here.
    """

    def __init__(self, context: Context, embedder: Embedder, store: PointReader, reports: Reports) -> None:
        self.config = context.config
        self.metrics = ApiMetrics(context.registry)
        self._tasks = context.tasks
        self._reports = reports
        self._searcher = Searcher.of(context, embedder, store)

    def search(self, request: SearchRequest) -> SearchResponse:
        """Returns the hits of a search, by falling score."""
        if request.limit > self.config.api.max_limit:
            raise QueryError("limit_too_large", f"limit: at most {self.config.api.max_limit}")
        with self.metrics.latency.labels("/v1/search").time():
            if request.text is not None:
                hits = self._searcher.by_text(request.task, request.text, request.limit, request.filter)
            else:
                hits = self._searcher.by_key(request.task, request.id or "", request.limit, request.filter)
        return SearchResponse(task=request.task, collection=self._tasks[request.task].alias, hits=hits)

    def embeddings(self, request: EmbeddingsRequest) -> dict[str, Any]:
        """Returns OpenAI's answer to an embeddings request."""
        task = self._searcher.task(request.model)
        if request.dimensions not in {None, task.dimension}:
            raise QueryError("invalid_dimensions", f"dimensions: this task has {task.dimension}")
        texts = [request.input] if isinstance(request.input, str) else request.input
        with self.metrics.latency.labels("/v1/embeddings").time():
            embedded = self._searcher.embed(request.model, texts, as_records=request.input_type == "document")
        rows = _as_base64(embedded) if request.encoding_format == "base64" else embedded.rows.tolist()
        return {
            "object": "list",
            "model": request.model,
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "usage": {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens},
        }

    def tasks(self) -> list[TaskResponse]:
        """Returns every task as clients see it."""
        topics = self.config.source.topics.items()
        return [
            TaskResponse(
                name=task.name,
                mode=task.config.mode,
                instruction=task.config.instruction,
                query_instruction=task.config.query_instruction,
                model=task.config.model,
                collection=task.alias,
                dimension=task.dimension,
                fingerprint=task.fingerprint,
                topics=[topic for topic, settings in topics if task.name in settings.tasks],
            )
            for task in self._tasks.values()
        ]

    async def status(self) -> dict[str, Any]:
        """Returns lag, counts and freshness per topic and task, and how busy the models are."""
        return status(self.config, await self._reports())

    async def readiness(self) -> tuple[bool, str]:
        """Returns whether records flow and queries can be answered, and what is missing if not."""
        return readiness(self.config, await self._reports())

    async def metrics_text(self) -> bytes:
        """Returns every process's metrics in Prometheus' text format."""
        reports, registry = await self._reports(), CollectorRegistry()
        AppMetrics(registry).ready.set(readiness(self.config, reports)[0])
        registry.register(SnapshotCollector(report.snapshot for report in reports))
        return generate_latest(registry)


def _as_base64(embedded: Embedded) -> list[str]:
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in embedded.rows]
