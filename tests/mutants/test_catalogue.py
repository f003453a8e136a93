"""The catalogue keeps up with the source; the mutants themselves are run by `python -m tests.mutants`."""

import ast
from pathlib import Path

import pytest

from tests.config_trees import ROOT
from tests.mutants.catalogue import MUTANTS, MovedError, Mutant, edited


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_edit_fits_the_source_and_leaves_it_readable(mutant: Mutant) -> None:
    ast.parse(edited(ROOT, mutant))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_tests_of_a_mutant_exist(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, name = test.split("[")[0].split("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_source_that_has_moved_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(MovedError, match="0 times, expected once"):
        edited(tmp_path, Mutant("m", "gone.py", "y = 1", "", ()))
