"""The targets of `python -m tests.fuzz`: what was found once stays mended, and a fault is noticed."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Reason, RecordError
from pipeline.records.files.csv_rows import CsvRow
from tests.fuzz import __main__ as fuzz
from tests.fuzz.of_files import accounted
from tests.fuzz.table import FINDINGS, TARGETS, findings_of
from tests.fuzz.target import Target, choice, joined, parts_of

REPLAYED = [(name, data) for name, target in TARGETS.items() for data in (*target.seeds, *findings_of(name))]
NAMES = st.sampled_from(list(TARGETS))


@pytest.mark.parametrize(("name", "data"), REPLAYED, ids=lambda value: value if isinstance(value, str) else "")
def test_inputs_that_were_found_or_thought_of_do_no_harm(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@given(NAMES, st.binary(max_size=64))
def test_any_bytes_do_no_harm(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


def test_every_folder_of_findings_is_a_targets() -> None:
    assert {path.name for path in FINDINGS.iterdir()} <= set(TARGETS)


def test_parts_come_apart_as_they_were_joined() -> None:
    assert parts_of(joined(b"a", b"", b"c"), 3) == [b"a", b"", b"c"]
    assert parts_of(b"a", 3) == [b"a", b"", b""]
    assert (choice(b"\x07x"), choice(b"")) == ((7, b"x"), (0, b""))


def row(line: int, values: list[str] | None) -> CsvRow:
    return CsvRow(line, RecordError(Reason.INVALID_ROW) if values is None else values, 0, is_broken=False)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([row(3, ["2", "b"])], id="a row is missing"),
        pytest.param([row(2, ["1", "a"])], id="the last row is missing"),
        pytest.param([row(2, ["1", "x"]), row(3, ["2", "b"])], id="a value is another"),
        pytest.param([row(2, None), row(3, ["2", "b"])], id="a good row is rejected"),
        pytest.param([row(2, None)], id="a rejected row takes another with it"),
        pytest.param([row(3, ["2", "b"]), row(2, ["1", "a"])], id="order"),
    ],
)
def test_a_table_that_loses_a_row_is_noticed(rows: list[CsvRow]) -> None:
    lines = [b"id,text\n", b"1,a\n", b"2,b\n"]
    accounted(lines, ["id", "text"], [row(2, ["1", "a"]), row(3, ["2", "b"])], 100)
    with pytest.raises(AssertionError):
        accounted(lines, ["id", "text"], rows, 100)


needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="there is no atheris for this machine")


@pytest.mark.slow
@needs_atheris
def test_a_fault_is_found_and_its_input_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed on which the process fails, as it would on a fault: it asks for a target that is not there."""
    monkeypatch.setattr(fuzz, "FOLDER", tmp_path)
    monkeypatch.setattr(fuzz, "TARGETS", {**TARGETS, "absent": Target(lambda _: None, [b"x"])})
    failed = fuzz.fuzz("absent", 1)
    assert failed.finding == "no input is kept"
    assert "KeyError" in failed.said
    sound = fuzz.fuzz("paths", 1)
    assert (sound.finding, sound.said) == (None, "")
    assert sound.executions >= len(TARGETS["paths"].seeds)


def test_without_atheris_it_says_so_and_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.argv", ["fuzz", "--seconds", "1"])
    assert fuzz.main() == 0
    assert "there is no atheris here" in capsys.readouterr().out
