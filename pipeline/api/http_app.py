"""The HTTP API: who is admitted, the routes, and the one form of every failure. Answers come from `ApiService`."""

import hmac
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from pipeline.api.models import (
    EmbeddingsRequest,
    ErrorDetail,
    ErrorResponse,
    SearchRequest,
    SearchResponse,
    TaskResponse,
)
from pipeline.api.service import ApiService
from pipeline.config.pipeline import ApiConfig
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.records.digits import whole_number
from pipeline.searcher import QueryError

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


def build_api(service: ApiService) -> FastAPI:
    """Returns the API over a service, as an ASGI app. It keeps no state but the number of requests at work."""
    app = FastAPI(
        title="Refract",
        summary="Search records under a task's own instruction.",
        version="1",
        responses={code: {"model": ErrorResponse} for code in (400, 401, 404, 413, 415, 429, 500, 503)},
    )
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(QueryError, _on_query)
    app.add_exception_handler(RefractError, _on_fault)
    app.middleware("http")(Gate(service))
    _add_vector_routes(app, service)
    _add_watching_routes(app, service)
    return app


def _add_vector_routes(app: FastAPI, service: ApiService) -> None:
    @app.post("/v1/search")
    def search(request: SearchRequest) -> SearchResponse:
        """Searches a task's collection by text, or by the id of a stored record."""
        return service.search(request)

    @app.post("/v1/embeddings")
    def embeddings(request: EmbeddingsRequest) -> dict[str, Any]:
        """Embeds texts under a task. OpenAI's request and answer, with the task as the model."""
        return service.embeddings(request)

    @app.get("/v1/tasks")
    def list_tasks() -> list[TaskResponse]:
        """Lists the tasks: what is asked of the model, and where the answers are."""
        return service.tasks()


def _add_watching_routes(app: FastAPI, service: ApiService) -> None:
    @app.get("/v1/status")
    async def show_status() -> dict[str, Any]:
        """Tells lag, counts and freshness per topic and task, and how busy the models are."""
        return await service.status()

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Answers while this process lives."""
        return "ok\n"

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 when records flow and queries can be answered; else 503 with what is missing."""
        ready, reason = await service.readiness()
        return JSONResponse({"ready": ready, "reason": reason}, status_code=200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Every process's metrics, in Prometheus' text format."""
        return Response(await service.metrics_text(), media_type=CONTENT_TYPE_LATEST)


class Gate:
    """The middleware before every route: admits, counts and times requests."""

    def __init__(self, service: ApiService) -> None:
        self._config: ApiConfig = service.config.api
        self._requests = service.metrics.requests
        self._num_requests = 0

    async def __call__(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answers one request: with a refusal, the route's answer, or a failure that nobody expected."""
        refused = self._refusal(request)
        self._num_requests += 1
        try:
            response = refused or await answer(request)
        except Exception as error:  # noqa: BLE001 - told by number; the middleware above would not count it
            response = _bug(error)
        finally:
            self._num_requests -= 1
        route = getattr(request.scope.get("route"), "path", "other")
        self._requests.labels(route, response.status_code).inc()
        return response

    def _refusal(self, request: Request) -> Response | None:
        """Returns the refusal of a request that must not be worked on, None for the others."""
        if request.url.path not in OPEN_ROUTES and not self._is_authorised(request):
            return failure(401, "unauthorised", "send the API key as `Authorization: Bearer` or `api-key`")
        if request.method == "POST":
            if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return failure(415, "not_json", "send application/json")
            length = whole_number(request.headers.get("content-length", ""))
            if length is None:
                return failure(411, "length_required", "send Content-Length")
            if length > MAX_BODY_BYTES:
                return failure(413, "body_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes")
        # What a person or a scraper asks of an overloaded app is answered all the same.
        if request.method == "POST" and self._num_requests >= self._config.max_concurrent_requests:
            return failure(429, "too_many_requests", "too many requests at once; try again", {"Retry-After": "1"})
        return None

    def _is_authorised(self, request: Request) -> bool:
        expected = self._config.api_key
        if expected is None:
            return True
        bearer = request.headers.get("authorization", "")
        given = bearer[7:] if bearer[:7].lower() == "bearer " else request.headers.get("api-key", "")
        return hmac.compare_digest(given.encode(), expected.get_secret_value().encode())


def failure(code: int, name: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns an error in the API's one form."""
    body = ErrorResponse(error=ErrorDetail(code=name, message=message)).model_dump()
    return JSONResponse(body, status_code=code, headers=headers)


async def _on_invalid(_request: Request, error: Any) -> JSONResponse:
    # Places and rules only: the values may be anything, and go back to nobody.
    places = {
        # Of broken JSON the place is a number of characters, which names no field.
        "" if detail["type"] == "json_invalid" else ".".join(map(str, detail["loc"][1:])): str(detail["msg"])
        for detail in error.errors()
    }
    message = "; ".join(f"{place or 'body'}: {rule.removeprefix('Value error, ')}" for place, rule in places.items())
    return failure(400, "invalid_request", message[:2000])


async def _on_http(_request: Request, error: Any) -> JSONResponse:
    return failure(error.status_code, HTTP_CODES.get(error.status_code, "http_error"), str(error.detail))


async def _on_query(_request: Request, error: Any) -> JSONResponse:
    if error.code == "text_too_large":
        return failure(413, error.code, str(error))
    # To a caller the values of a filter are part of the request's form, like every field that the models check.
    code = "invalid_request" if error.code == "invalid_filter" else error.code
    return failure(404 if code in NOT_FOUND_CODES else 400, code, str(error))


async def _on_fault(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, TransientError):
        return failure(503, "unavailable", "a component is away; try again", {"Retry-After": "1"})
    if isinstance(error, EnvironmentFault):
        return failure(503, "out_of_service", str(error))
    return _bug(error)


def _bug(error: Exception) -> JSONResponse:
    incident = uuid.uuid4().hex[:12]
    log.error("A request failed unexpectedly.", incident=incident, error=type(error).__name__)
    return failure(500, "internal", f"this is a bug; the logs know it as {incident}")
