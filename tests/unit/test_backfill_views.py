"""What a backfill shows: its report, its line of progress, and what earlier runs have finished."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.backfill.executor import RunState
from pipeline.backfill.ledger import Ledger
from pipeline.backfill.outcome import Counts, Outcome
from pipeline.backfill.rates import Rates
from pipeline.backfill.report import BackfillReport
from pipeline.backfill.work import Work
from pipeline.cli.backfill_report import print_report
from pipeline.cli.backfill_view import progress_line
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.records.files.listing import FilePart
from tests.fakes import task
from tests.unit.test_backfill import _config


def test_a_report_is_a_table_and_json_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counts(rows=10, embedded=16, written=16, points=16, stale=2)
    counts.rejected["no_key"] = 2
    report = BackfillReport(fragments_done=2, fragments_skipped=1, failed={"a#1": "cut short"}, seconds=2.04)
    report.add(counts)
    assert not report.ok
    print_report(report, as_json=True)
    tree = json.loads(capsys.readouterr().out)
    assert (tree["fragments_done"], tree["fragments_skipped"], tree["fragments_failed"]) == (3, 1, 1)
    assert (tree["written"], tree["stale"], tree["seconds"]) == (14, 2, 2.0)
    assert tree["rejected_by_reason"] == {"no_key": 2}
    assert tree["failed"] == {"a#1": "cut short"}
    print_report(report, as_json=False)
    shown = capsys.readouterr().out
    assert "no_key" in shown
    assert "cut short" in shown


def test_the_line_of_progress_shows_rates_and_what_is_left() -> None:
    works = [Work(FilePart("a.parquet", 1, 1, part, num_rows=100), ["one"], 0) for part in range(4)]
    rates = Rates(works)
    rates._first = 0.0, 50
    rates.see(RunState(Counts(rows=100, embedded=200, tokens=1_000, written=200), 5.0, 2), 10.0)
    rates.finished(works[0])
    counts = Counts(rows=300, finished=250, embedded=600, tokens=5_000, written=600, retries=1)
    shown = progress_line(rates, RunState(counts, 9.0, 2), 20.0)
    assert shown == (
        "fragments 1/4 · read 300 (20 rows/s) · embedded 600 (400 tokens/s) · written 600 (40 points/s) · "
        "2 embedders 20% busy · retries 1 · about 0:00:15 left"
    )


def test_rates_are_those_of_the_last_minute_since_rows_came() -> None:
    rates = Rates([Work(FilePart("a.parquet", 1, 1, 0), ["one"], 0)])

    def shown(seconds: float, rows: int, tokens: int = 0) -> str:
        state = RunState(Counts(rows=rows, tokens=tokens), 0.0, 1)
        rates.see(state, seconds)
        return progress_line(rates, state, seconds)

    assert "(0 rows/s)" in shown(1.0, 0)
    assert "(0 rows/s)" in shown(100.0, 500)  # the models were loaded meanwhile
    assert "(50 rows/s)" in shown(110.0, 1_000)
    assert "(25 rows/s)" in shown(120.0, 1_000, tokens=400)  # still the same batch; the line does not stop
    assert "(20 tokens/s)" in shown(120.0, 1_000, tokens=400)
    for second in range(121, 161):
        shown(float(second), 1_000, tokens=400)
    assert "(8 rows/s)" in shown(160.0, 1_000, tokens=400)
    assert "(0 rows/s)" in shown(170.0, 1_000, tokens=400)
    assert "(0 rows/s)" in shown(171.0, 600, tokens=400)  # a process died, and its counts with it


def test_what_is_left_goes_by_what_is_finished_however_far_ahead_reading_is() -> None:
    rates = Rates([Work(FilePart("a.parquet", 1, 1, 0, num_rows=400), ["one"], 0)])
    rates.see(RunState(Counts(rows=400), 0.0, 1), 5.0)
    assert "left" not in progress_line(rates, RunState(Counts(rows=400), 0.0, 1), 5.0)
    rates.see(RunState(Counts(rows=400, finished=100), 0.0, 1), 10.0)
    assert "about 0:00:40 left" in progress_line(rates, RunState(Counts(rows=400, finished=200), 0.0, 1), 30.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one INPUT"),
        (["none*.parquet"], "no file matches"),
        (["a.parquet", "--to", "parquet"], "needs --output"),
        (["a.parquet", "--output", "x"], "needs --to parquet"),
        (["a.parquet", "--tasks", "on"], "Did you mean 'one'"),
        (["kafka://other"], "no source topic"),
        (["a.parquet"], "no column 'title'.*Nothing was written"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "titles": ["t"], "v": [1]}), "a.parquet")
    assert invoke(["backfill", str(_config(tmp_path)), *arguments]) == ExitCode.CONFIG
    assert list(tmp_path.glob("store*")) == []
    assert re.search(message, capsys.readouterr().err.replace("\n", " "), re.DOTALL)


def test_status_shows_tasks_and_fingerprints_of_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(tmp_path)
    assert invoke(["backfill", str(config), "--status"]) == ExitCode.OK
    assert "nothing is noted" in capsys.readouterr().out
    now = Context(ConfigTree.read(config)).tasks["one"]
    for each in (now, task("two")):
        ledger = Ledger(tmp_path / "store.backfill", [each])
        ledger.note(Work(FilePart("a.jsonl", 10, 1, 0), [each.name], 0), Outcome(Counts(5), 5, []), done=each is now)
        ledger.close()
    assert invoke(["backfill", str(config), "--status", "--json"]) == ExitCode.OK
    tasks: Any = json.loads(capsys.readouterr().out)["tasks"]
    assert {(one["task"], one["fragments_done"], one["fragments_begun"]) for one in tasks} == {
        ("one", 1, 0),
        (None, 0, 1),
    }
