"""The fault table is complete, every test it names exists, and nothing is green by default."""

from typing import Any

import pytest

from tests.config_trees import ROOT
from tests.e2e.differences import Difference, Harm
from tests.faults.__main__ import summary
from tests.faults.results import fault_run
from tests.faults.row import Row
from tests.faults.table import NUM_ROWS, rows


def test_table_has_every_row_once() -> None:
    assert [row.number for row in rows()] == list(range(1, NUM_ROWS + 1))


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.number))
def test_row_is_run_by_tests_or_says_why_not(row: Row) -> None:
    assert bool(row.tests) != bool(row.reason)
    for test in row.tests:
        path, name = test.split("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name}(" in source
        assert "fault_run(" in source, "it must record what it has measured"


RUN = {"row": 3, "seed": 7, "recovery_s": 1.5, "duplicates": 2, "lost": 0, "doubled": 0, "stale": 0, "wrong": 0}
PASSED: dict[str, Any] = {**RUN, "test": "a.py::test_one[7]", "passed": True}
ROW = Row(3, "fault", "how", "expected", ("a.py::test_one",))


def test_row_is_green_only_when_its_tests_ran_recorded_and_passed() -> None:
    green = summary(ROW, [PASSED, {**PASSED, "seed": 8, "recovery_s": None}], {})
    assert (green["passed"], green["seeds"], green["recovery_s"], green["duplicates"]) == (True, [7, 8], 1.5, 4)
    assert summary(ROW, [], {})["passed"] is False
    assert summary(ROW, [{**PASSED, "row": 4}], {})["passed"] is False
    assert summary(ROW, [{**PASSED, "passed": False, "lost": 1}], {})["passed"] is False
    assert summary(ROW, [PASSED], {"a.py::test_one[8]": "before it recorded anything"})["passed"] is False
    assert summary(Row(3, "fault", "how", "expected", reason="no such machine"), [], {})["passed"] is None


def test_run_that_did_not_ask_the_oracle_or_found_something_fails() -> None:
    with pytest.raises(AssertionError, match="without asking the oracle"), fault_run(3):
        pass
    with pytest.raises(AssertionError, match="lost"), fault_run(3) as run:
        run.compared([Difference(Harm.LOST, "a point")])
    assert (run.lost, run.passed) == (1, False)
    with fault_run(3) as run:
        run.compared([])
    assert run.passed
