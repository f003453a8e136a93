"""What a backfill writes besides a store: files of vectors, its report, its line of progress; and what it refuses."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.backfill.counts import BackfillReport
from pipeline.backfill.executor import RunState
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.ledger import Ledger
from pipeline.backfill.outcome import Counts, Outcome, Reject
from pipeline.backfill.rates import Rates
from pipeline.backfill.vectors import FragmentFile, check_output
from pipeline.backfill.work import Work
from pipeline.cli.backfill_report import print_report
from pipeline.cli.backfill_view import progress_line
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.records.batches import PointBatch
from pipeline.records.files.filesystems import open_filesystem
from pipeline.records.files.listing import FilePart
from pipeline.records.record import point_id
from tests.fakes import DIMENSION, task, vector
from tests.unit.test_backfill import _config

TASKS = [task("one"), task("two")]


def batch(numbers: range, deleted: int | None = None) -> PointBatch:
    rows = {each.collection: np.stack([vector(each.name, f"text {number}") for number in numbers]) for each in TASKS}
    return PointBatch(
        np.frombuffer(b"".join(point_id("p", "tickets", f"s:K-{number}") for number in numbers), np.uint8).reshape(
            -1, 16
        ),
        np.array(numbers, np.int64),
        np.array([number == deleted for number in numbers]),
        [{"_key": f"s:K-{number}", "team": "a"} for number in numbers],
        rows,
    )


def test_vectors_in_parquet_are_read_by_plain_pyarrow_and_searched_with_numpy(tmp_path: Path) -> None:
    for part, numbers in enumerate((range(10), range(10, 25))):
        file = FragmentFile(tmp_path / "out", FilePart("in/a.parquet", 1, 1, part), TASKS)
        file.upsert(batch(numbers[:7], deleted=3))
        file.upsert(batch(numbers[7:]))
        assert not list((tmp_path / "out").glob("*.parquet"))[part:], "a file appears whole or not at all"
        file.flush()
    table = ds.dataset(tmp_path / "out").to_table().sort_by("version")
    assert table.schema.field("vector_two").type == pa.list_(pa.float32(), DIMENSION)
    assert table["version"].to_pylist() == list(range(25))
    assert table["key"].to_pylist()[:2] == ["K-0", "K-1"]
    assert json.loads(table["payload"][1].as_py()) == {"team": "a"}
    assert table["vector_one"].null_count == table["vector_two"].null_count == sum(table["deleted"].to_pylist()) == 1
    assert table.schema.field("vector_one").metadata[b"fingerprint"].decode() == TASKS[0].fingerprint

    live = table.filter(pa.compute.invert(table["deleted"]))
    rows = np.stack(live["vector_one"].to_numpy(zero_copy_only=False))
    hits = np.argsort(-(rows @ vector("one", "text 17")))[:1]
    assert live["key"].take(hits).to_pylist() == ["K-17"]


def test_the_same_fragment_and_tasks_replace_their_file(tmp_path: Path) -> None:
    for numbers in (range(10), range(3)):
        file = FragmentFile(tmp_path, FilePart("in/a.parquet", 1, 1, 0), TASKS)
        file.upsert(batch(numbers))
        file.flush()
    assert ds.dataset(tmp_path).count_rows() == 3


def test_a_folder_with_vectors_of_another_fingerprint_is_refused(tmp_path: Path) -> None:
    file = FragmentFile(tmp_path, FilePart("in/a.parquet", 1, 1, 0), TASKS)
    file.upsert(batch(range(3)))
    file.flush()
    check_output(tmp_path, TASKS, unseen)
    check_output(tmp_path, [task("third")], unseen)
    check_output(tmp_path / "new", TASKS, unseen)
    changed = replace(TASKS[1], fingerprint="f" * 64)
    with pytest.raises(ConfigError, match=r"vectors of task 'two' under another fingerprint.*name another folder"):
        check_output(tmp_path, [TASKS[0], changed], unseen)
    (tmp_path / "a.parquet").write_text("no Parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read as Parquet"):
        check_output(tmp_path, TASKS, unseen)


def unseen(_doing: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def test_that_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "title": ["t"], "v": [1]}), "a.parquet")
    file = FragmentFile(tmp_path / "out", FilePart("a.parquet", 1, 1, 0), TASKS)
    file.upsert(batch(range(3)))
    file.flush()
    arguments = ["backfill", str(_config(tmp_path)), "a.parquet", "--to", "parquet", "--output", "out"]
    assert invoke(arguments) == ExitCode.CONFIG
    assert "under another fingerprint" in capsys.readouterr().err.replace("\n", " ")


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    file = FragmentFile(tmp_path / "out", FilePart("in/a.parquet", 1, 1, 0), TASKS)
    file.upsert(batch(range(3)))
    with pytest.raises(EnvironmentFault, match="out: cannot be written"):
        file.flush()


@pytest.mark.parametrize("group_rows", [400, 100_000])
def test_a_disk_that_is_full_amid_a_file_ends_the_run_and_the_next_writes_it_whole(
    group_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the call repeated, rows would be written twice, into a file that is broken already."""
    monkeypatch.setattr("pipeline.backfill.vectors.GROUP_ROWS", group_rows)

    def carry() -> None:
        file = FragmentFile(tmp_path, FilePart("in/a.parquet", 1, 1, 0), TASKS)
        for first in range(0, 2_000, 200):
            file.upsert(batch(range(first, first + 200)))
        file.flush()

    with (
        largest_file(32_768),
        pytest.raises(EnvironmentFault, match=r"cannot be written.*run again once there is room"),
    ):
        carry()
    assert not list(tmp_path.glob("*.parquet"))
    carry()
    assert ds.dataset(tmp_path).to_table()["version"].to_pylist() == list(range(2_000))


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA123:hush@bucket/rows.parquet",
        "s3://bucket/rows.parquet?secret_key=hush&region=x",
        "gs://bucket/rows.parquet?access_token=hush",
        "abfs://name:hush@account.dfs.core.windows.net/rows",
        "abfss://account.dfs.core.windows.net/c/rows?sig=hush",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match="credentials do not belong in an address") as caught:
        open_filesystem(uri)
    assert "hush" not in str(caught.value)
    assert "AKIA123" not in str(caught.value)


def test_an_unknown_scheme_and_an_unreadable_place_are_named() -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        list_inputs(["gopher://rows.parquet"])
    with pytest.raises((ConfigError, EnvironmentFault), match=r"no file matches|cannot be listed"):
        list_inputs(["/proc/1/root/nothing/*.parquet"])


def test_a_ledger_without_space_ends_the_run_and_notes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", [TASKS[0]], "tickets")
    [[pages]] = ledger._db.execute("PRAGMA page_count").fetchall()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(EnvironmentFault, match=r"cannot be written.*full"):
        ledger.note(Work(FilePart("x" * 30_000, 1, 1, 0), ["one"], 0), Outcome(Counts(1), 1, []), done=True)
    ledger.close()


def test_rejects_of_an_interrupted_fragment_are_kept_beside_the_later_ones(tmp_path: Path) -> None:
    ledger, fragment = Ledger(tmp_path, [TASKS[0]], "tickets"), FilePart("a.jsonl", 10, 1, 0)
    first, second = (Work(fragment, ["one"], start) for start in (0, 5))
    ledger.note(first, Outcome(Counts(5), 5, [Reject(1, "no_key", "", "")]), done=False)
    ledger.note(second, Outcome(Counts(5), 10, [Reject(7, "no_key", "", "")]), done=True)
    ledger.close()
    assert sorted(ds.dataset(tmp_path / "rejects").to_table()["row"].to_pylist()) == [1, 7]


def test_a_row_group_larger_than_the_memory_for_it_is_read_in_batches(tmp_path: Path) -> None:
    """120 MB of text in one row group; reading it may cost a part of that."""
    path = tmp_path / "a.parquet"
    count = 12_000
    random = np.random.default_rng(0)
    texts = pa.array([random.bytes(5_000).hex() for _ in range(count)])
    keys = pa.array([str(number) for number in range(count)])
    pq.write_table(
        pa.table({"id": keys, "title": texts, "v": [1] * count}), path, row_group_size=count, compression="none"
    )
    pq.write_table(pa.table({"id": keys[:1], "title": texts[:1], "v": [1]}), tmp_path / "b.parquet")
    del texts
    script = f"""
from pathlib import Path
import psutil
from pipeline.backfill.inputs import list_inputs
from pipeline.backfill.rows import FragmentReader
from tests.unit.test_backfill import config_of
config = config_of(Path({str(tmp_path)!r}))
fragments = list_inputs([{str(tmp_path)!r} + "/*.parquet"]).fragments
small, fragment = sorted(fragments, key=lambda fragment: fragment.size)
list(FragmentReader(config, "tickets").batches(small))  # what is imported and allocated once
batches = FragmentReader(config, "tickets").batches(fragment)
memory = psutil.Process().memory_info
before, most, rows = memory().rss, 0, 0
for batch in batches:
    rows, most = rows + len(batch), max(most, memory().rss)
print(rows, (most - before) >> 20)
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    rows, grown_mb = map(int, done.stdout.split())
    assert rows == count
    assert grown_mb < 120


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
        (["a.parquet", "--tasks", ""], "has no task ''"),
        (["kafka://other"], "no source topic"),
        (["kafka://["], "is not an address"),
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
    for each in (now, TASKS[1]):
        ledger = Ledger(tmp_path / "store.backfill", [each], "tickets")
        ledger.note(Work(FilePart("a.jsonl", 10, 1, 0), [each.name], 0), Outcome(Counts(5), 5, []), done=each is now)
        ledger.close()
    assert invoke(["backfill", str(config), "--status", "--json"]) == ExitCode.OK
    tasks: Any = json.loads(capsys.readouterr().out)["tasks"]
    assert {(one["task"], one["fragments_done"], one["fragments_begun"]) for one in tasks} == {
        ("one", 1, 0),
        (None, 0, 1),
    }
