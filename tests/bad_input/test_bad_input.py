"""Every bad input has its decided outcome, harms nothing around it, and is quoted nowhere."""

from pathlib import Path

import pytest

from tests.bad_input.case import Case
from tests.bad_input.table import TITLES, cases, try_case
from tests.config_trees import ROOT

TRIED = [case for case in cases() if case.see is not None]
PROVEN = [case for case in cases() if case.proven_by]


@pytest.mark.parametrize("case", TRIED, ids=lambda case: f"row{case.row}")
def test_bad_input_has_its_decided_outcome(case: Case, tmp_path: Path) -> None:
    assert try_case(case, tmp_path) == case.expected, f"row {case.row}, {TITLES[case.row]}: {case.given}"


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: f"row{case.row}")
def test_rows_that_need_a_server_or_a_model_name_a_test_that_exists(case: Case) -> None:
    path, name = case.proven_by.split("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_the_table_has_all_rows_and_no_other() -> None:
    assert len(TITLES) == 134
    assert {case.row for case in cases()} == set(TITLES)
