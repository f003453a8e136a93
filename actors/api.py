"""The HTTP ingress: search, embeddings, tasks, status, health and metrics. Thin: every answer comes from elsewhere."""

import base64
import hmac
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from actors.process import start_context
from actors.remote import RemoteEmbedder, RemoteStore
from actors.reporting import Reporter
from pipeline.api.models import (
    EmbeddingsRequest,
    ErrorDetail,
    ErrorResponse,
    HitResponse,
    SearchRequest,
    SearchResponse,
    TaskResponse,
)
from pipeline.api.status import readiness, status
from pipeline.config.load import ConfigTree
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.interfaces import PointReader
from pipeline.metrics import ApiMetrics, ReplicaReport, SnapshotCollector
from pipeline.search import QueryError, Searcher

MAX_BODY_BYTES = 4_194_304
OPEN_ROUTES = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Answered without a key: yes or no, and what this API is, the same everywhere."""

NOT_FOUND_CODES = frozenset({"unknown_task", "unknown_record"})
HTTP_CODES: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""Error codes of what FastAPI itself refuses."""

log = structlog.get_logger(__name__)
app = FastAPI(
    title="Refract",
    summary="Search records under a task's own instruction.",
    version="1",
    responses={code: {"model": ErrorResponse} for code in (400, 401, 404, 413, 415, 429, 500, 503)},
)


def failure(code: int, name: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns an error in the API's one form."""
    body = ErrorResponse(error=ErrorDetail(code=name, message=message)).model_dump()
    return JSONResponse(body, status_code=code, headers=headers)


@app.exception_handler(RequestValidationError)
async def _on_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    # Places and rules only: the values may be anything, and go back to nobody.
    places = {
        # Of broken JSON the place is a number of characters, which names no field.
        "" if detail["type"] == "json_invalid" else ".".join(map(str, detail["loc"][1:])): str(detail["msg"])
        for detail in error.errors()
    }
    message = "; ".join(f"{place or 'body'}: {rule.removeprefix('Value error, ')}" for place, rule in places.items())
    return failure(400, "invalid_request", message[:2000])


@app.exception_handler(HTTPException)
async def _on_http(_request: Request, error: HTTPException) -> JSONResponse:
    return failure(error.status_code, HTTP_CODES.get(error.status_code, "http_error"), str(error.detail))


@app.exception_handler(QueryError)
async def _on_query(_request: Request, error: QueryError) -> JSONResponse:
    if error.code == "text_too_large":
        return failure(413, error.code, str(error))
    # A filter's values are a matter of the request's form to callers, like every field that the models check.
    code = "invalid_request" if error.code == "invalid_filter" else error.code
    return failure(404 if code in NOT_FOUND_CODES else 400, code, str(error))


@app.exception_handler(RefractError)
async def _on_fault(_request: Request, error: RefractError) -> JSONResponse:
    if isinstance(error, TransientError):
        return failure(503, "unavailable", "a component is away; try again", {"Retry-After": "1"})
    if isinstance(error, EnvironmentFault):
        return failure(503, "out_of_service", str(error))
    return await _on_bug(_request, error)


@app.exception_handler(Exception)
async def _on_bug(_request: Request, error: Exception) -> JSONResponse:
    incident = uuid.uuid4().hex[:12]
    log.error("A request failed unexpectedly.", incident=incident, error=type(error).__name__)
    return failure(500, "internal", f"this is a bug; the logs know it as {incident}")


# Above the class: `serve.ingress` copies the app as it is then, and what is added later is in no replica.
@app.middleware("http")
async def _admit(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    replica: Any = serve.get_replica_context().servable_object
    response: Response = await replica.handle(request, answer)
    return response


@serve.deployment
@serve.ingress(app)
class Api:
    """One Serve replica of the HTTP API."""

    def __init__(
        self,
        source: ConfigTree,
        embedders: dict[str, DeploymentHandle[Any]],
        store: DeploymentHandle[Any] | None,
        monitor: DeploymentHandle[Any],
        ingestor: DeploymentHandle[Any],  # noqa: ARG002 - binding it makes Serve deploy it
    ) -> None:
        context = start_context(source)
        config = self._config = context.config
        self._tasks = context.tasks
        self._monitor = monitor
        self._metrics = ApiMetrics(context.registry)
        self._num_requests = 0
        remote: PointReader = RemoteStore(store) if store is not None else context.open_store()
        self._searcher = Searcher(
            config.pipeline,
            context.tasks,
            tokenizers=context.tokenizers(),
            embedder=RemoteEmbedder(embedders),
            store=remote,
            filterable=config.filterable,
            max_query_bytes=config.api.max_query_bytes,
        )
        self._reporter = Reporter("api", monitor, context.registry, lambda: (True, ""))

    def admit(self, request: Request) -> Response | None:
        """Returns the refusal of a request that must not be worked on, None for the others."""
        if request.url.path not in OPEN_ROUTES and not self._authorised(request):
            return failure(401, "unauthorised", "send the API key as `Authorization: Bearer` or `api-key`")
        if request.method == "POST":
            if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return failure(415, "not_json", "send application/json")
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return failure(411, "length_required", "send Content-Length")
            if int(length) > MAX_BODY_BYTES:
                return failure(413, "body_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")
        # What a person or a scraper asks of an overloaded app is answered all the same.
        if request.method == "POST" and self._num_requests >= self._config.api.max_concurrent_requests:
            return failure(429, "too_many_requests", "too many requests at once; try again", {"Retry-After": "1"})
        return None

    async def handle(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Admits, counts and times one request."""
        refused = self.admit(request)
        self._num_requests += 1
        try:
            response = refused or await answer(request)
        finally:
            self._num_requests -= 1
        route = getattr(request.scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, response.status_code).inc()
        return response

    def _authorised(self, request: Request) -> bool:
        expected = self._config.api.api_key
        if expected is None:
            return True
        bearer = request.headers.get("authorization", "")
        given = bearer[7:] if bearer[:7].lower() == "bearer " else request.headers.get("api-key", "")
        return hmac.compare_digest(given.encode(), expected.get_secret_value().encode())

    @app.post("/v1/search")
    def search(self, request: SearchRequest) -> SearchResponse:
        """Searches a task's collection by text, or by the id of a stored record."""
        if request.limit > self._config.api.max_limit:
            raise QueryError("limit_too_large", f"limit: at most {self._config.api.max_limit}")
        with self._metrics.latency.labels("/v1/search").time():
            if request.text is not None:
                hits = self._searcher.by_text(request.task, request.text, request.limit, request.filters)
            else:
                hits = self._searcher.by_key(request.task, request.id or "", request.limit, request.filters)
        return SearchResponse(
            task=request.task,
            collection=self._tasks[request.task].alias,
            hits=[
                HitResponse(id=hit.id, key=hit.key, score=hit.score, version=hit.version, payload=dict(hit.payload))
                for hit in hits
            ],
        )

    @app.post("/v1/embeddings")
    def embeddings(self, request: EmbeddingsRequest) -> dict[str, Any]:
        """Embeds texts under a task. OpenAI's request and answer, with the task as the model."""
        task = self._searcher.task(request.model)
        if request.dimensions not in {None, task.dimension}:
            raise QueryError("invalid_dimensions", f"dimensions: this task has {task.dimension}")
        texts = [request.input] if isinstance(request.input, str) else request.input
        with self._metrics.latency.labels("/v1/embeddings").time():
            embedded = self._searcher.embed(request.model, texts, as_records=request.input_type == "document")
        as_base64 = request.encoding_format == "base64"
        rows: list[Any] = (
            [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in embedded.rows]
            if as_base64
            else embedded.rows.tolist()
        )
        return {
            "object": "list",
            "model": request.model,
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "usage": {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens},
        }

    @app.get("/v1/tasks")
    def list_tasks(self) -> list[TaskResponse]:
        """Lists the tasks: what is asked of the model, and where the answers are."""
        topics = self._config.source.topics.items()
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

    @app.get("/v1/status")
    async def show_status(self) -> dict[str, Any]:
        """Tells lag, counts and freshness per topic and task, and how busy the models are."""
        return status(self._config, await self._reports())

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz(self) -> str:
        """Answers while this process lives."""
        return "ok\n"

    @app.get("/readyz")
    async def readyz(self) -> JSONResponse:
        """200 when records flow and queries can be answered; else 503 with what is missing."""
        ready, reason = readiness(self._config, await self._reports())
        return JSONResponse({"ready": ready, "reason": reason}, status_code=200 if ready else 503)

    @app.get("/metrics")
    async def metrics(self) -> Response:
        """Every process's metrics, in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(SnapshotCollector(report.snapshot for report in await self._reports()))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def _reports(self) -> list[ReplicaReport]:
        reports: list[ReplicaReport] = await self._monitor.reports.remote()
        return reports
