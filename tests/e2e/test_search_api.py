"""The HTTP API of a running app: what it answers, what it refuses, and what it never shows.

Two models at once: the null engine, whose vectors can be compared exactly, and the packaged MiniLM.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from pipeline.metrics import ApiMetrics, AppMetrics, EmbedMetrics, IngestMetrics, ProcessMetrics, StoreMetrics
from pipeline.records.record import point_id
from tests.broker import Broker
from tests.e2e.api_cases import (
    FILTERS,
    MINILM,
    PATHS,
    STATES,
    WRONG_BODIES,
    WRONG_EMBEDDINGS,
    WRONG_SEARCHES,
    give_alias_to_an_earlier_instruction,
    keys,
    num_queries,
    samples,
    search,
    text_of,
)
from tests.e2e.harness import InProcessApp, journal_of, refused, wait_until, write_config
from tests.e2e.oracle import all_points

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

API_KEY = "an-api-key-of-the-tests"


@pytest.fixture(scope="module")
def failpoints(folder: Path) -> Path:
    made = folder / "failpoints"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def config_path(folder: Path, broker: Broker, failpoints: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFRACT_E2E_KEY", API_KEY)
        patch.setenv("REFRACT_FAILPOINTS", str(failpoints))  # read by each process as it starts
        path = write_config(
            folder,
            broker,
            "api",
            models__minilm=MINILM,
            tasks__meaning={"model": "minilm", "instruction": "What is this about", "collection": "meanings"},
            tasks__moved={"model": "hash", "instruction": "As it is asked today"},
            ticket_tasks=["urgency", "technical_issue", "meaning", "moved"],
            api__api_key="${REFRACT_E2E_KEY}",
        )
        yield path


@pytest.fixture(scope="module")
def app(config_path: Path, broker: Broker) -> Iterator[InProcessApp]:
    give_alias_to_an_earlier_instruction(config_path)
    with journal_of(config_path) as journal, InProcessApp(config_path, broker, journal) as running:
        for number, fields in enumerate(STATES):
            journal.ticket(f"A-{number}", 1, **fields)
        journal.ticket("gone", 1, "This was deleted again", urgency="high")
        journal.ticket("gone", 2, deleted=True)
        running.check()
        yield running


@pytest.mark.parametrize("task", ["urgency", "technical_issue", "meaning"])
def test_search_finds_the_record_with_the_very_text(app: InProcessApp, task: str) -> None:
    answer = search(app, task, text=text_of(app, 2), limit=3).json()
    assert answer["task"] == task
    assert answer["collection"] == ("meanings" if task == "meaning" else task)
    first = answer["hits"][0]
    assert first["key"] == "A-2"
    assert first["score"] == pytest.approx(1.0, abs=1e-4)
    assert first["version"] == app.journal.expected(task, "A-2").version
    wanted = app.journal.expected(task, "A-2").payload
    assert first["payload"] == {name: value for name, value in wanted.items() if name != "_key"}
    assert first["id"].replace("-", "") == point_id("api", "api.tickets", "s:A-2").hex()
    scores = [hit["score"] for hit in answer["hits"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_packaged_model_finds_what_means_the_same(app: InProcessApp) -> None:
    assert set(keys(search(app, "meaning", text="fire and smoke in the data centre", limit=2))) == {"A-0", "A-1"}
    assert keys(search(app, "meaning", text="I forgot my password", limit=1)) == ["A-4"]


def test_search_by_id_returns_neighbours_without_the_record_itself(app: InProcessApp) -> None:
    assert keys(search(app, "meaning", id="A-0", limit=1)) == ["A-1"]
    assert len(keys(search(app, "urgency", id="A-0"))) == len(STATES) - 1
    refused(search(app, id="A-99"), 404, "unknown_record")
    refused(search(app, id=0), 404, "unknown_record")


@pytest.mark.parametrize(("condition", "expected"), FILTERS)
def test_filters_keep_what_meets_every_condition(
    app: InProcessApp, condition: dict[str, Any], expected: set[int]
) -> None:
    assert set(keys(search(app, text="anything", filter=condition))) == {f"A-{number}" for number in expected}


def test_deleted_records_never_appear(app: InProcessApp) -> None:
    for task in ("urgency", "technical_issue", "meaning"):
        found = keys(search(app, task, text="Ticket gone\n\nThis was deleted again", limit=1_000))
        assert sorted(found) == [f"A-{number}" for number in range(len(STATES))]
        assert keys(search(app, task, text="anything", filter={"title": "Ticket gone"})) == []
        refused(search(app, task, id="gone"), 404, "unknown_record")


def test_query_against_another_fingerprint_is_refused_and_records_go_to_the_own_collection(app: InProcessApp) -> None:
    message = refused(search(app, "moved", text="anything"), 503, "out_of_service")
    assert "fingerprint" in message
    moved = app.journal.tasks["moved"]
    assert len(all_points(app.store(), moved.collection)) == len(STATES) + 1
    assert app.ready()


@pytest.mark.parametrize(("body", "code"), WRONG_SEARCHES)
def test_wrong_searches_are_refused_with_a_reason(app: InProcessApp, body: dict[str, Any], code: str) -> None:
    refused(search(app, **body), 400, code)


@pytest.mark.parametrize("task", ["nosuchtask", "urgenc", "t" * 63])
def test_unknown_task_is_not_found_and_names_no_other(app: InProcessApp, task: str) -> None:
    for answer in (search(app, task, text="a"), app.http.post("/v1/embeddings", json={"model": task, "input": "a"})):
        message = refused(answer, 404, "unknown_task")
        assert "urgency" not in message


@pytest.mark.parametrize("task", ["", "../urgency", "a/b", "ü", "t" * 300, 7, None, "urgency:query", "urgency\n"])
def test_what_is_no_task_name_is_refused(app: InProcessApp, task: Any) -> None:
    refused(search(app, task, text="a"), 400, "invalid_request")


@pytest.mark.parametrize(("content", "headers", "status", "code"), WRONG_BODIES, ids=lambda value: repr(value)[:40])
def test_wrong_bodies_are_refused_with_a_reason(
    app: InProcessApp, content: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = app.http.post("/v1/search", content=content, headers=headers)
    refused(answer, status, [code] if code else ["invalid_request", "invalid_text"])


def test_body_without_a_length_is_refused(app: InProcessApp) -> None:
    answer = app.http.post("/v1/search", content=iter([b"{}"]), headers={"content-type": "application/json"})
    refused(answer, 411, "length_required")


def test_query_longer_than_the_limit_is_refused(app: InProcessApp) -> None:
    limit = app.config.api.max_query_bytes
    refused(search(app, text="a" * (limit + 1)), 413, "text_too_large")
    refused(app.http.post("/v1/embeddings", json={"model": "urgency", "input": "ü" * limit}), 413, "text_too_large")
    assert search(app, text="a" * limit).status_code == 200


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "[SEP] [CLS]", "{text} {0} {{7*7}} %s", "\x00", "שלום 👩🏽‍🚒", "a" * 20_000]
)
@pytest.mark.parametrize("task", ["urgency", "meaning"])
def test_strange_queries_are_only_text(app: InProcessApp, task: str, text: str) -> None:
    assert len(keys(search(app, task, text=text))) == len(STATES)


def test_refusals_do_not_repeat_what_was_sent(app: InProcessApp) -> None:
    secret = "4111-1111-1111-1111"  # noqa: S105 - stands for any text of a client
    for body in (
        {"task": secret},
        {"task": "urgency", "text": [secret]},
        {"task": "urgency", "text": "a", "limit": secret},
    ):
        assert secret not in app.http.post("/v1/search", json=body).text


def test_embeddings_as_numbers_and_as_base64_are_the_records_vectors(app: InProcessApp) -> None:
    texts = [text_of(app, number) for number in range(3)]
    body = {"model": "urgency", "input": texts, "user": "somebody", "dimensions": 384}
    answer = app.http.post("/v1/embeddings", json=body).json()
    assert answer["object"] == "list"
    assert answer["model"] == "urgency"
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", index) for index in range(3)]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    rows = np.array([row["embedding"] for row in answer["data"]], np.float32)
    np.testing.assert_array_equal(rows, app.journal.vectors("urgency", texts))
    encoded = app.http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in encoded["data"]]
    np.testing.assert_array_equal(decoded, rows)


def test_document_embeddings_of_the_packaged_model_are_what_is_stored(app: InProcessApp) -> None:
    texts = [text_of(app, number) for number in range(len(STATES))]
    body = {"model": "meaning", "input": texts, "input_type": "document"}
    answer = app.http.post("/v1/embeddings", json=body).json()
    stored = all_points(app.store(), app.journal.tasks["meaning"].collection)
    for number, row in enumerate(answer["data"]):
        vector = stored[point_id("api", "api.tickets", f"s:A-{number}")].vector
        assert vector is not None
        np.testing.assert_allclose(row["embedding"], vector, atol=2e-3)


@pytest.mark.parametrize(("body", "code"), WRONG_EMBEDDINGS)
def test_wrong_embeddings_requests_are_refused(app: InProcessApp, body: dict[str, Any], code: str) -> None:
    refused(app.http.post("/v1/embeddings", json={"model": "urgency", **body}), 400, code)


def test_work_of_a_client_that_has_gone_is_not_done(app: InProcessApp, failpoints: Path) -> None:
    before = num_queries(app, "hash")
    with ThreadPoolExecutor() as threads:
        (failpoints / "forward").write_text("sleep 6")
        first = threads.submit(search, app, text="first")
        wait_until(lambda: list(failpoints.glob("forward.*")), "the model computes")
        impatient = httpx.Client(base_url=app.http.base_url, headers=app.http.headers, timeout=1.0, trust_env=False)
        with impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post("/v1/search", json={"task": "urgency", "text": "nobody waits for this"})
        last = threads.submit(search, app, text="last")
        assert [answer.result().status_code for answer in (first, last)] == [200, 200]
    assert num_queries(app, "hash") == before + 2


def test_tasks_tell_what_is_asked_and_where_the_answers_are(app: InProcessApp) -> None:
    listed = {task["name"]: task for task in app.http.get("/v1/tasks").json()}
    assert set(listed) == set(app.config.tasks)
    for name, task in listed.items():
        assert task["fingerprint"] == app.journal.tasks[name].fingerprint
        assert task["dimension"] == 384
    assert listed["meaning"] == {
        "name": "meaning",
        "mode": "symmetric",
        "instruction": "What is this about",
        "query_instruction": None,
        "model": "minilm",
        "collection": "meanings",
        "dimension": 384,
        "fingerprint": app.journal.tasks["meaning"].fingerprint,
        "topics": ["api.tickets"],
    }
    assert listed["audit"]["topics"] == ["api.events"]


def test_status_counts_what_went_through(app: InProcessApp) -> None:
    sent = app.journal.num_records()
    wait_until(lambda: app.tickets()["received"] == sent, "every record is counted")
    status = app.status()
    assert status["pipeline"] == "api"
    assert status["ready"] is True
    assert status["uptime_s"] > 0
    tickets = app.tickets()
    assert tickets["lag_records"] == 0
    assert tickets["dead_letters"] == {}
    for task in tickets["tasks"].values():
        assert (task["written"], task["deleted"]) in {(len(STATES), 1), (len(STATES) + 1, 1)}
        assert 0 < task["freshness_p50_s"] <= task["freshness_p99_s"]
    assert {name: model["replicas"] for name, model in status["models"].items()} == {"hash": 1, "minilm": 1}


def test_metrics_show_every_name_of_the_metrics_module(app: InProcessApp) -> None:
    registry = CollectorRegistry()
    for metrics in (IngestMetrics, EmbedMetrics, ApiMetrics, StoreMetrics, ProcessMetrics, AppMetrics):
        metrics(registry)
    expected = {metric.name: metric.documentation for metric in registry.collect()}
    search(app, text="count me")

    def shown() -> bool:
        families = list(text_string_to_metric_families(app.http.get("/metrics").text))
        counted = {family.name for family in families if family.samples}
        own = {family.name: family.documentation for family in families if not family.name.endswith("_created")}
        assert own == expected
        return {"refract_points_written", "refract_embeddings", "refract_requests"} <= counted

    wait_until(shown, "records, embeddings and requests are counted")
    assert app.http.get("/metrics").headers["content-type"].startswith("text/plain")


def test_requests_are_counted_by_route_and_status_and_never_by_path(app: InProcessApp) -> None:
    for number in range(5):
        app.http.get(f"/v1/nowhere/{number}")
    search(app, text="")

    def routes() -> set[tuple[str, str]]:
        return {
            (sample.labels["route"], sample.labels["status"])
            for sample in samples(app, "refract_requests")
            if sample.name.endswith("_total")
        }

    wait_until(lambda: {("/v1/search", "200"), ("/v1/search", "400"), ("other", "404")} <= routes(), "they are counted")
    assert {route for route, _ in routes()} <= {
        *map(str, app.http.get("/openapi.json").json()["paths"]),
        "other",
        "/docs",
        "/openapi.json",
    }


def test_openapi_page_is_served(app: InProcessApp) -> None:
    page = app.http.get("/docs")
    assert page.status_code == 200
    assert "openapi.json" in page.text
    description = app.http.get("/openapi.json").json()
    assert set(description["paths"]) == PATHS
    for methods in description["paths"].values():
        for operation in methods.values():
            assert "self" not in str(operation.get("parameters", ""))
            assert operation["description"]


def test_only_health_and_the_description_answer_without_the_key(app: InProcessApp) -> None:
    with httpx.Client(base_url=app.http.base_url, trust_env=False) as stranger:
        assert stranger.get("/healthz").text == "ok\n"
        assert stranger.get("/readyz").json() == {"ready": True, "reason": ""}
        assert stranger.get("/docs").status_code == stranger.get("/openapi.json").status_code == 200
        for path in ("/v1/tasks", "/v1/status", "/metrics", "/redoc", "/nowhere"):
            refused(stranger.get(path), 401, "unauthorised")
        for header in ({"api-key": ""}, {"api-key": API_KEY + "x"}, {"authorization": "Basic x"}, {"api-key": "ü"}):
            encoded = [(name.encode(), value.encode()) for name, value in header.items()]
            answer = stranger.post("/v1/search", json={"task": "urgency", "text": "a"}, headers=encoded)
            refused(answer, 401, "unauthorised")
        bearer = {"authorization": f"Bearer {API_KEY}"}
        assert stranger.get("/v1/tasks", headers=bearer).status_code == 200


def test_other_paths_and_methods_are_refused_in_the_same_form(app: InProcessApp) -> None:
    refused(app.http.get("/v1/nowhere"), 404, "not_found")
    refused(app.http.get("/v1/search"), 405, "method_not_allowed")
    refused(app.http.delete("/v1/tasks"), 405, "method_not_allowed")


def test_secrets_stand_in_no_process_list(app: InProcessApp) -> None:
    for name in ("Api", "Ingestor", "Embedder", "StoreOwner", "Monitor"):
        for process in app.processes(name):
            assert API_KEY not in " ".join(process.cmdline())
