"""What a plan makes of a sample and a pace; and the pace itself, from what a run shows of itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.backfill.costs import LOG_BYTES, POINT_BYTES, RAM_FACTOR, Pace, estimate
from pipeline.backfill.executor import RunState
from pipeline.backfill.outcome import Counts
from pipeline.backfill.rehearsal import FEWEST_STEPS, MEASURED_S, PaceWatch, _EnoughError
from pipeline.backfill.sample import Sample, Size, Tokens
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.errors import EnvironmentFault
from pipeline.records.record import Position, Record

PACE = Pace(first_s=20, first_rows=100, rows_per_s=50, num_rows=500, embedder_busy=0.9, num_embedders=2)
TOKENS = {"one": Tokens(30, 10, 8, 0.0), "two": Tokens(10, 5, 0, 0.1)}
SIZE = Size(num_files=2, num_bytes=10**6, rows=[6_000, 4_000], exact=True)


def tree(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    topic: dict[str, Any] = {
        "key": "id",
        "text": "{title}",
        "version": "v",
        "payload": ["title"],
        "tasks": ["one", "two"],
    }
    topic |= changes.pop("topic", {})
    return {
        "pipeline": "planned",
        "source": {
            "bootstrap_servers": ["localhost:9092"],
            "group_id": "g",
            "dead_letter_topic": "dead",
            "topics": {"tickets": {name: value for name, value in topic.items() if value is not None}},
        },
        "models": {"null": {"model": "null:100", "num_gpus": 0.5, "replicas": 2}},
        "tasks": {"one": {"model": "null", "instruction": "first"}, "two": {"model": "null", "dimension": 50}},
        "store": {"type": "edge", "path": str(tmp_path / "store")},
    } | changes


def context(tmp_path: Path, **changes: Any) -> Context:
    return Context(ConfigTree(tree(tmp_path, **changes), "test"))


def sample(num_bad: int = 0) -> Sample:
    records = [Record(f"s:{n}", 1, f"text {n}", {"title": "t"}, Position("t", 0, n, -1)) for n in range(10)]
    found = Sample(num_rows=10 + num_bad, records=records, tokens=TOKENS)
    found.bad.update({"text_empty": num_bad} if num_bad else {})
    return found


def test_time_is_the_start_and_the_rows_at_their_pace() -> None:
    assert PACE.seconds(10_000) == 20 + 9_900 / 50
    assert PACE.seconds(50) == 20


def test_price_and_gpu_hours_count_the_embedders_that_took_part(tmp_path: Path) -> None:
    found = context(tmp_path, ray={"gpu_hour_price": 3.0})
    full = estimate(found.config, list(found.tasks.values()), SIZE, sample(), PACE)
    assert full.seconds == PACE.seconds(10_000)
    assert full.gpu_hours == pytest.approx(full.seconds / 3_600)  # two embedders of half a GPU
    assert full.price == pytest.approx(3.0 * full.gpu_hours)
    assert sum(part.price or 0 for part in full.tasks) == pytest.approx(full.price)
    assert [part.share for part in full.tasks] == [0.75, 0.25]
    half = Pace(20, 100, 50, 500, 0.9, num_embedders=1)
    assert estimate(found.config, list(found.tasks.values()), SIZE, sample(), half).gpu_hours == pytest.approx(
        full.gpu_hours / 2
    )


def test_tasks_that_ask_the_same_share_the_cost_of_one(tmp_path: Path) -> None:
    found = context(tmp_path)
    shared = {"one": Tokens(30, 10, 8, 0.0, num_sharing=3), "two": TOKENS["two"]}
    full = estimate(found.config, list(found.tasks.values()), SIZE, replace(sample(), tokens=shared), PACE)
    assert [part.share for part in full.tasks] == [0.5, 0.5]


def test_no_price_without_a_price_per_hour_or_without_gpus(tmp_path: Path) -> None:
    plain = context(tmp_path)
    assert estimate(plain.config, list(plain.tasks.values()), SIZE, sample(), PACE).price is None
    cpu = context(tmp_path, ray={"gpu_hour_price": 3.0}, models={"null": {"model": "null:100"}})
    found = estimate(cpu.config, list(cpu.tasks.values()), SIZE, sample(), PACE)
    assert (found.gpu_hours, found.price) == (0, None)


def test_room_in_the_store_is_that_of_the_rows_that_are_stored(tmp_path: Path) -> None:
    found = context(tmp_path)
    taken = sample(num_bad=10)
    one, two = estimate(found.config, list(found.tasks.values()), SIZE, taken, PACE).tasks
    assert one.points == two.points == 5_000
    assert (one.ram_bytes, two.ram_bytes) == (5_000 * 400 * RAM_FACTOR, 5_000 * 200 * RAM_FACTOR)
    point_bytes = 400 + len('{"title":"t"}') + POINT_BYTES
    assert one.disk_bytes == 2 * 5_000 * point_bytes  # all of it is still in the log, too
    many = Size(num_files=1, num_bytes=10**12, rows=[1e9], exact=True)
    one, _ = estimate(found.config, list(found.tasks.values()), many, taken, PACE).tasks
    assert one.disk_bytes == 5 * 10**8 * point_bytes + LOG_BYTES


def watched(rows_at: dict[float, int], monkeypatch: pytest.MonkeyPatch) -> PaceWatch:
    now = [0.0]
    monkeypatch.setattr("pipeline.backfill.rehearsal.time.monotonic", lambda: now[0])
    watch = PaceWatch(2, 0, lambda *_: None)
    for seconds, rows in rows_at.items():
        now[0] = seconds
        watch.progress(RunState(Counts(written=2 * rows), busy_s=seconds / 2, num_embedders=1))
    return watch


def test_the_pace_is_that_of_the_time_after_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {0.5: 0, 10.0: 100} | {11.0 + turn: 150 + 50 * turn for turn in range(FEWEST_STEPS - 1)}
    watch = watched(rows, monkeypatch)
    monkeypatch.setattr("pipeline.backfill.rehearsal.time.monotonic", lambda: 10.0 + MEASURED_S)
    last = RunState(Counts(written=2 * (100 + 50 * int(MEASURED_S))), busy_s=5 + MEASURED_S / 2, num_embedders=1)
    with pytest.raises(_EnoughError):
        watch.progress(last)
    pace = watch.pace(30.0, finished=False)
    assert (pace.first_s, pace.first_rows, pace.rows_per_s, pace.embedder_busy) == (10.0, 100, 50.0, 0.5)


def test_an_input_that_is_through_at_once_takes_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = watched({9.0: 70}, monkeypatch).pace(12.0, finished=True)
    assert pace.seconds(70) == 12.0


def test_no_rows_are_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFault, match="no row"):
        watched({9.0: 0}, monkeypatch).pace(12.0, finished=True)


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the rehearsal was asked for."""
    asked: list[Any] = []

    def rehearse(*arguments: Any) -> Pace:
        asked.append(arguments)
        return PACE

    monkeypatch.setattr("pipeline.usecases.estimate.rehearse", rehearse)
    return asked


def write(tmp_path: Path, lines: list[dict[str, Any]], **changes: Any) -> list[str]:
    config, rows = tmp_path / "config.yaml", tmp_path / "rows.jsonl"
    config.write_text(yaml.safe_dump(tree(tmp_path, **changes)), encoding="utf-8")
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return [str(config), str(rows)]


def test_the_verb_prints_what_a_script_reads_and_writes_nothing(
    tmp_path: Path, rehearsed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path, [{"id": str(n), "title": f"t {n}", "v": n} for n in range(30)] + [{"v": 1}])
    assert invoke(["plan", *given, "--json", "--tasks", "two"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["input"] == {"files": 1, "bytes": shown["input"]["bytes"], "rows": 31, "exact": True}
    assert shown["sample"]["rejected"] == {"no_key": 1}
    assert [task["task"] for task in shown["tasks"]] == ["two"]
    assert shown["seconds"] == PACE.seconds(31)
    assert rehearsed[0][1].tasks == ["two"]
    assert not (tmp_path / "store").exists()


def test_the_table_names_time_price_and_reasons(
    tmp_path: Path, rehearsed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path, [{"id": "1", "title": "t", "v": 1}, {"v": 1}], ray={"gpu_hour_price": 36_000.0})
    assert invoke(["plan", *given]) == ExitCode.OK
    shown = capsys.readouterr().out
    for part in ("2 rows", "no_key 1", "50 rows/s", "20 s", "200.00", "one", "two"):
        assert part in shown
    assert rehearsed


def test_rows_without_a_version_are_warned_of(
    tmp_path: Path, rehearsed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path, [{"id": "1", "title": "t"}], topic={"version": None, "generation": 1})
    assert invoke(["plan", *given]) == ExitCode.OK
    assert "loses against every live record" in capsys.readouterr().err
    assert rehearsed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none*.parquet"], ExitCode.CONFIG, "no file matches"),
        (["{rows}", "--tasks", "tow"], ExitCode.CONFIG, "Did you mean 'two'"),
        (["{rows}", "--topic", "ticket"], ExitCode.CONFIG, "Did you mean 'tickets'"),
        (["{empty}"], ExitCode.FAILED, "no row"),
    ],
)
def test_what_cannot_be_planned_is_named(
    arguments: list[str],
    code: ExitCode,
    message: str,
    tmp_path: Path,
    rehearsed: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, rows = write(tmp_path, [{"id": "1", "title": "t", "v": 1}])
    (tmp_path / "empty.jsonl").touch()
    places = {"rows": rows, "empty": str(tmp_path / "empty.jsonl")}
    assert invoke(["plan", config, *(argument.format(**places) for argument in arguments)]) == code
    assert message in capsys.readouterr().err
    assert not rehearsed
