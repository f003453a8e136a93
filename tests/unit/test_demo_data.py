"""The demo's tickets are what the demo claims: balanced, distinct, in many languages, with all kinds of changes."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

TICKETS = Path(__file__).parents[2] / "pipeline" / "demo" / "tickets.jsonl"
START_MS = 1_767_225_600_000
ISSUES = {
    "login",
    "password_reset",
    "email",
    "vpn",
    "wifi_network",
    "printer",
    "laptop_hardware",
    "software_install",
    "database",
    "server_outage",
    "access_permissions",
    "billing_invoice",
}
URGENCIES = {"low", "medium", "high", "critical"}
FIELDS = {"id", "title", "body", "issue", "urgency", "tone", "wish", "language", "updated_at", "status"}
DOCUMENTATION = ("192.0.2.", "198.51.100.", "203.0.113.")
"""Address ranges reserved for documentation."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """The file's lines by what they are; `lines` keeps their order."""

    lines: list[Line]
    opened: list[Line]
    updates: list[Line]
    late: list[Line]
    deletes: list[Line]
    broken: list[Line]


@pytest.fixture(scope="module")
def stream() -> Stream:
    lines: list[Line] = [json.loads(line) for line in TICKETS.read_text("utf-8").splitlines()]
    records = [line for line in lines if "_raw" not in line]
    newest: dict[str, int] = {}
    updates: list[Line] = []
    late: list[Line] = []
    for record in records:
        older = record["updated_at"] < newest.get(record["id"], 0)
        newest[record["id"]] = max(newest.get(record["id"], 0), record["updated_at"])
        if record["status"] == "updated":
            (late if older else updates).append(record)
    return Stream(
        lines=lines,
        opened=[record for record in records if record["status"] == "open"],
        updates=updates,
        late=late,
        deletes=[record for record in records if record["status"] == "deleted"],
        broken=[line for line in lines if "_raw" in line],
    )


def test_the_file_is_small_and_not_ascii_escaped() -> None:
    raw = TICKETS.read_bytes()
    assert len(raw) < 600_000
    assert re.search(rb"\\u[0-9a-f]{4}", raw) is None


def test_every_record_has_exactly_the_documented_fields(stream: Stream) -> None:
    for record in stream.opened + stream.updates + stream.late + stream.deletes:
        assert set(record) == FIELDS
        assert record["issue"] in ISSUES
        assert record["urgency"] in URGENCIES
        assert record["status"] in {"open", "updated", "deleted"}
        assert re.fullmatch(r"T-\d+", record["id"])
        assert re.fullmatch(r"[a-z]{2}", record["language"])
        assert type(record["updated_at"]) is int
        assert record["updated_at"] >= START_MS
        assert record["status"] == "deleted" or record["body"].strip()


def test_ids_are_distinct_and_enough(stream: Stream) -> None:
    ids = [record["id"] for record in stream.opened]
    assert len(ids) == len(set(ids)) >= 640


def test_issues_and_urgencies_are_crossed_and_balanced(stream: Stream) -> None:
    cells = Counter((record["issue"], record["urgency"]) for record in stream.opened)
    assert len(cells) == 48
    assert min(cells.values()) >= 13
    for count in Counter(record["urgency"] for record in stream.opened).values():
        assert abs(count / len(stream.opened) - 0.25) <= 0.02


def test_a_tenth_is_in_other_languages_for_every_issue_and_urgency(stream: Stream) -> None:
    others = [record for record in stream.opened if record["language"] != "en"]
    assert len(others) >= 64
    assert len({record["language"] for record in others}) >= 13
    assert {record["issue"] for record in others} == ISSUES
    assert {record["urgency"] for record in others} == URGENCIES


def test_no_two_bodies_are_alike(stream: Stream) -> None:
    bodies = [record["body"] for record in stream.opened]
    assert len(set(bodies)) == len(bodies)
    words = [frozenset(re.findall(r"\w+", body.lower())) for body in bodies]
    assert max(len(a & b) / len(a | b) for a, b in combinations(words, 2)) < 0.75


def test_lengths_span_one_liners_to_long_reports(stream: Stream) -> None:
    lengths = [len(record["body"].split()) for record in stream.opened if record["language"] not in {"ja", "zh"}]
    assert min(lengths) <= 5
    assert 150 <= max(lengths) <= 300
    assert any(not record["title"] for record in stream.opened)
    assert any(record["body"].isupper() for record in stream.opened)
    assert any("\n" in record["body"] for record in stream.opened)


def test_updates_are_newer_and_change_the_body(stream: Stream) -> None:
    assert len(stream.updates) == 40
    before: dict[str, Line] = {}
    changed_urgency = 0
    for record in stream.lines:
        if "_raw" in record or record in stream.late:
            continue
        if record["status"] == "updated":
            old = before[record["id"]]
            assert record["updated_at"] > old["updated_at"]
            assert record["body"] != old["body"]
            assert record["issue"] == old["issue"]
            changed_urgency += record["urgency"] != old["urgency"]
        before[record["id"]] = record
    assert changed_urgency >= 10


def test_late_updates_are_older_than_what_came_before(stream: Stream) -> None:
    assert len(stream.late) == 3
    for late in stream.late:
        earlier = [line for line in stream.lines[: stream.lines.index(late)] if line.get("id") == late["id"]]
        assert earlier
        assert late["updated_at"] < max(line["updated_at"] for line in earlier)
        assert late["body"] not in {line["body"] for line in earlier}


def test_deletes_name_known_tickets_and_are_their_last_word(stream: Stream) -> None:
    assert len({record["id"] for record in stream.deletes}) == len(stream.deletes) == 15
    for delete in stream.deletes:
        place = stream.lines.index(delete)
        earlier = [line for line in stream.lines[:place] if line.get("id") == delete["id"]]
        assert earlier
        assert delete["updated_at"] > max(line["updated_at"] for line in earlier)
        assert not any(line.get("id") == delete["id"] for line in stream.lines[place + 1 :])


def test_time_rises_but_for_the_late_ones(stream: Stream) -> None:
    times = [line["updated_at"] for line in stream.lines if "_raw" not in line and line not in stream.late]
    assert all(a < b for a, b in pairwise(times))
    assert times[0] - START_MS < 3_600_000


def test_broken_lines_are_present_and_broken_in_eight_ways(stream: Stream) -> None:
    known = {record["id"] for record in stream.opened}
    faults: set[str] = set()
    for line in stream.broken:
        assert set(line) == {"_raw", "_key"}
        assert line["_key"] is None or line["_key"] not in known
        faults.add(_fault(line["_raw"]))
    assert len(stream.broken) == 8
    assert faults == {
        "truncated",
        "not an object",
        "no text",
        "text is an object",
        "empty text",
        "time is a string",
        "NaN",
        "duplicate key",
    }


def test_changes_and_broken_lines_come_in_the_latter_two_thirds(stream: Stream) -> None:
    first = next(i for i, line in enumerate(stream.lines) if line.get("status") != "open")
    assert first >= len(stream.lines) // 3


def test_neighbouring_tickets_are_mixed(stream: Stream) -> None:
    for start in range(0, len(stream.opened) - 60, 60):
        window = stream.opened[start : start + 60]
        assert len({record["issue"] for record in window}) >= 9
        assert {record["urgency"] for record in window} == URGENCIES


def test_only_reserved_domains_and_addresses_appear() -> None:
    text = TICKETS.read_text("utf-8")
    for domain in re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", text):
        assert domain in {"example.com", "example.org"}
    for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text):
        assert address.startswith(DOCUMENTATION)


def _fault(raw: str) -> str:
    """Names what is wrong with a broken value."""
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> Line:
        repeated.extend(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        return dict(items)

    constants: list[str] = []
    try:
        value = json.loads(raw, object_pairs_hook=pairs, parse_constant=constants.append)
    except json.JSONDecodeError:
        return "truncated"
    if not isinstance(value, dict):
        return "not an object"
    checks = {
        "NaN": bool(constants),
        "duplicate key": bool(repeated),
        "no text": "title" not in value and "body" not in value,
        "text is an object": isinstance(value.get("body"), dict),
        "empty text": isinstance(value.get("body"), str) and not f"{value.get('title', '')}{value['body']}".strip(),
        "time is a string": isinstance(value.get("updated_at"), str),
    }
    return next((name for name, found in checks.items() if found), "nothing")
