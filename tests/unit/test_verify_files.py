"""`refract verify --input FILE`: a file of any kind is compared as if it had come from the topic, without a broker."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.session import Session
from pipeline.usecases.compare import DeleteExtras, repair, verify
from pipeline.usecases.compared_sources import CompareRequest
from tests.broker import free_port

Row = dict[str, Any]

DELETE = ("--delete-extras", "--yes", "--force")
"""A file alone proves nothing to be extra: the topic may have its record."""


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=7)


WRITERS: dict[str, Callable[[Path, Sequence[Row]], None]] = {
    "csv": write_csv,
    "jsonl": write_lines,
    "parquet": write_parquet,
}


def rows(*numbers: int, at: int = 5) -> list[Row]:
    return [{"id": f"k{number}", "at": at, "text": f"text {number} in version {at}"} for number in numbers]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = {
        "pipeline": "files",
        "source": {
            "bootstrap_servers": ["127.0.0.1:1"],
            "group_id": "files",
            "dead_letter_topic": "rows.dead-letters",
            "topics": {"rows": {"key": "id", "text": "{text}", "version": "at", "tasks": ["urgency", "topic"]}},
        },
        "models": {"hash": {"model": "null:16"}},
        "tasks": {"urgency": {"model": "hash", "instruction": "a"}, "topic": {"model": "hash", "instruction": "b"}},
        "store": {"type": "edge", "path": str(tmp_path / "store")},
        "api": {"port": free_port()},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_file_is_compared_and_what_differs_is_mended(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    file = tmp_path / f"rows.{kind}"

    def verify() -> tuple[int, dict[str, int], dict[str, Any]]:
        code = invoke(["verify", str(config), "--input", str(file), "--sample", "all", "--json"])
        printed = capfd.readouterr()
        assert printed.out, printed.err
        report = json.loads(printed.out)
        found = report["tasks"]["topic"]
        kinds = ("missing", "stale", "extra", "wrong_state", "tombstone_missing", "wrong_vector", "pending")
        return code, {kind: found[kind] for kind in kinds if found[kind]}, report

    WRITERS[kind](file, rows(*range(20)))
    assert verify()[:2] == (ExitCode.FAILED, {"missing": 20})
    assert invoke(["repair", str(config), "--input", str(file)]) == ExitCode.OK
    capfd.readouterr()
    code, faults, report = verify()
    assert (code, faults, report["equal"], report["records"]) == (ExitCode.OK, {}, True, 20)
    assert report["tasks"]["urgency"]["vectors_checked"] == 20

    # Two rows are gone, two are new, one is newer, and one has another text under the same version.
    changed = [*rows(*range(2, 10)), *rows(10, at=6), *rows(*range(11, 22))]
    changed[0]["text"] = "another text"
    WRITERS[kind](file, changed)
    code, faults, report = verify()
    assert (code, faults) == (ExitCode.FAILED, {"missing": 2, "stale": 1, "extra": 2, "wrong_vector": 1})
    assert invoke(["repair", str(config), "--input", str(file), "--sample", "all", *DELETE]) == ExitCode.OK
    capfd.readouterr()
    assert verify()[:2] == (ExitCode.OK, {})


def quiet(doing: str, done: int, total: int) -> None:
    pass


def test_from_python_the_reports_have_the_fields_that_json_prints(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = CompareRequest(tmp_path / "rows.jsonl", sample=None)
    write_lines(tmp_path / "rows.jsonl", rows(1, 2))
    found = verify(Context.open(config), request, quiet)
    assert (found.equal, found.records, found.tasks["topic"].missing) == (False, 2, 2)
    invoke(["verify", str(config), "--input", str(request.inputs), "--sample", "all", "--json"])
    assert json.loads(capfd.readouterr().out) == asdict(found)

    repaired = repair(Context.open(config), request, quiet)
    assert (repaired.complete, repaired.repaired["topic"].written) == (True, 2)
    assert verify(Context.open(config), request, quiet).tasks["topic"].vectors_checked == 2

    with Session.open(config) as refract:
        assert refract.verify(request).equal

    write_lines(tmp_path / "rows.jsonl", rows(1))
    left = repair(Context.open(config), request, quiet)
    assert (left.complete, left.repaired["topic"].left) == (False, 1)
    invoke(["repair", str(config), "--input", str(request.inputs), *DELETE, "--json"])
    printed = json.loads(capfd.readouterr().out)
    assert printed["repaired"]["topic"] == {"written": 0, "deleted": 1, "left": 0}
    assert printed["letters_written"] == 0
    with Session.open(config) as refract:
        assert refract.repair(request, extras=DeleteExtras(force=True)).complete


def test_options_of_a_file_need_a_file(config: Path) -> None:
    with pytest.raises(ConfigError, match="--input"):
        verify(Context.open(config), CompareRequest(key="id"), quiet)


def test_a_bad_row_is_rejected_and_not_pending_for_ever(config: Path, tmp_path: Path) -> None:
    request = CompareRequest(tmp_path / "rows.jsonl", sample=0)
    write_lines(tmp_path / "rows.jsonl", [*rows(1, 2), {"id": "k3", "at": 1}])
    assert repair(Context.open(config), request, quiet).complete
    found = verify(Context.open(config), request, quiet)
    assert (found.equal, found.dead_letters_pending, found.dead_letters) == (True, 0, {"text_missing": 1})


@pytest.mark.parametrize("other", ["elsewhere/rows.jsonl", "more.jsonl"])
def test_points_of_another_file_are_never_extra(config: Path, tmp_path: Path, other: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_lines(tmp_path / other, rows(1, 2, 3))
    write_lines(tmp_path / "rows.jsonl", rows(3, 4))
    for file in (other, "rows.jsonl"):
        repair(Context.open(config), CompareRequest(tmp_path / file, sample=0), quiet)
    found = verify(Context.open(config), CompareRequest(tmp_path / "rows.jsonl", sample=0), quiet)
    task = found.tasks["topic"]
    assert (found.equal, task.extra, task.elsewhere, task.points) == (True, 0, 2, 4)


def test_extras_are_not_deleted_where_nobody_can_answer(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    write_lines(file, rows(*range(30)))
    arguments = ["repair", str(config), "--input", str(file), "--sample", "0"]
    assert invoke(arguments) == ExitCode.OK
    write_lines(file, rows(*range(29)))
    capfd.readouterr()
    assert invoke([*arguments, "--delete-extras", "--yes"]) == ExitCode.CONFIG
    assert "may be in what was not compared: kafka://rows" in capfd.readouterr().err
    assert invoke([*arguments, "--delete-extras", "--force"]) == ExitCode.CONFIG
    shown = capfd.readouterr().err
    assert "'topic': 1 of 30 points are extra" in shown
    assert "say --yes" in shown
    assert invoke([*arguments, *DELETE]) == ExitCode.OK
    write_lines(file, rows(*range(20)))
    assert invoke([*arguments, "--delete-extras", "--yes"]) == ExitCode.CONFIG
    assert invoke([*arguments, *DELETE]) == ExitCode.OK
