"""More than the pipeline can take at once: one key, one huge text, too many queries, nothing but bad records.

One app serves all tests, in their order: the last one ends its ingestion.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Event

import httpx
import pytest

from pipeline.errors import Reason
from tests.broker import Broker
from tests.e2e.harness import InProcessApp, journal_of, refused, wait_until, write_config

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

Keys = Callable[[int], list[str]]

MIB = 1 << 20
MAX_RECORD_BYTES = 24 * MIB
MAX_REQUESTS = 8
DELAY_MS = 20

HOT_RECORDS = 100_000
PLAIN_RECORDS = 10_000

NUM_CLIENTS = 32
FLOOD_S = 8.0
FAST_S = 1.0
"""A refusal costs milliseconds; the rest is for the clients, which share the machine."""

MAX_GROWTH_MB = 400
"""Of an ingestor that has just carried a record of 20 MB: some copies of it, and never a copy per record."""


@pytest.fixture(scope="module")
def wide_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that takes records of 32 MB."""
    with Broker(tmp_path_factory.mktemp("overload-kafka"), {"message.max.bytes": str(32 * MIB)}) as running:
        yield running


@pytest.fixture(scope="module")
def app(folder: Path, wide_broker: Broker) -> Iterator[InProcessApp]:
    path = write_config(
        folder,
        wide_broker,
        "overload",
        models__hash__overrides={"delay_ms_per_batch": DELAY_MS},
        api__max_concurrent_requests=MAX_REQUESTS,
        limits={"max_record_bytes": MAX_RECORD_BYTES, "max_text_bytes": MAX_RECORD_BYTES},
    )
    with journal_of(path) as journal, InProcessApp(path, wide_broker, journal) as running:
        journal._producer.config["max_request_size"] = 32 * MIB
        yield running


def finish(app: InProcessApp) -> float:
    """Returns the records a second from now until all is finished."""
    app.journal.settle()
    began_s, before = time.monotonic(), app.num_committed()
    app.wait_finished()
    return (app.num_committed() - before) / (time.monotonic() - began_s)


def test_one_hot_key_ends_at_its_newest_version_and_slows_nobody_down(app: InProcessApp, fresh_keys: Keys) -> None:
    for key in fresh_keys(PLAIN_RECORDS):
        app.journal.ticket(key, 1)
    plain = finish(app)
    [hot] = fresh_keys(1)
    for version in range(1, HOT_RECORDS + 1):
        app.journal.ticket(hot, version)
        if version % 100 == 0:
            app.journal.ticket(f"beside-{version}", 1)
    rate = finish(app)
    assert app.journal.expected("urgency", hot).text == f"Ticket {hot}\n\n{hot} as of {HOT_RECORDS}"
    app.check()
    assert rate > plain / 2, f"{rate:.0f} records/s of one key, {plain:.0f} of many"


def test_a_text_of_20_megabytes_is_stored_and_a_larger_record_is_a_letter(app: InProcessApp, fresh_keys: Keys) -> None:
    [ingestor] = app.processes("Ingestor")
    before_mb = ingestor.memory_info().rss / MIB
    keys = fresh_keys(50)
    for number, key in enumerate(keys):
        app.journal.ticket(key, 1, "word " * (4 * MIB) + "end" if number == 20 else "")
        if number == 30:
            app.journal.poison(Reason.RECORD_TOO_LARGE, b'{"body": "' + b"x" * (26 * MIB) + b'"}')
    app.check()
    assert app.processes("Ingestor") == [ingestor]
    assert ingestor.memory_info().rss / MIB - before_mb < MAX_GROWTH_MB


def test_a_flood_of_queries_is_refused_fast_while_records_are_stored(app: InProcessApp, fresh_keys: Keys) -> None:
    for key in fresh_keys(4_000):
        app.journal.ticket(key, 1)
    app.journal.settle()
    finished, over = app.num_committed(), Event()

    def ask(number: int) -> list[tuple[httpx.Response, float]]:
        answers = []
        with httpx.Client(base_url=app.http.base_url, timeout=60, trust_env=False) as client:
            while not over.is_set():
                began_s = time.monotonic()
                answer = client.post("/v1/search", json={"task": "urgency", "text": f"query {number} {began_s}"})
                answers.append((answer, time.monotonic() - began_s))
        return answers

    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        asked = [clients.submit(ask, number) for number in range(NUM_CLIENTS)]
        try:
            time.sleep(FLOOD_S)
            stored = app.num_committed() - finished
        finally:
            over.set()
        answers = [answer for answered in asked for answer in answered.result()]
    codes = Counter(answer.status_code for answer, _ in answers)
    assert set(codes) == {200, 429}, codes
    assert codes[200] > FLOOD_S
    waits_s = {code: median(seconds for answer, seconds in answers if answer.status_code == code) for code in codes}
    assert waits_s[429] < min(FAST_S, waits_s[200])
    busy = next(answer for answer, _ in answers if answer.status_code == 429)
    refused(busy, 429, "too_many_requests")
    assert busy.headers["retry-after"] == "1"
    assert stored > 0, "nothing was stored during the flood"
    app.check()
    assert app.http.post("/v1/search", json={"task": "urgency", "text": "after"}).status_code == 200


def test_nothing_but_bad_records_stops_the_ingestor_and_leaves_the_rest_for_later(app: InProcessApp) -> None:
    before = app.num_committed()
    for number in range(6_000):
        app.journal.poison(Reason.INVALID_JSON, b"{", key=f"bad-{number}".encode())
    app.journal.settle()

    def told() -> str:
        answer = app.http.get("/readyz")
        reason = str(answer.json()["reason"]) if answer.status_code == 503 else ""
        return reason if "limits.max_dead_letter_share" in reason else ""

    reason = wait_until(told, "the breaker opens")
    assert "records are dead letters (the last one: invalid_json)" in reason
    assert app.num_committed() - before < 6_000, "all of it was dead-lettered"
    assert app.http.post("/v1/search", json={"task": "urgency", "text": "still there"}).status_code == 200
