"""The rules of the house that no linter knows: sizes of files and functions, empty packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from tests.config_trees import ROOT

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

PRODUCT = sorted(path for package in ("pipeline", "actors") for path in (ROOT / package).rglob("*.py"))
ALL = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: lines for node in functions if (lines := _code_lines(node)) > MAX_FUNCTION_LINES}
    assert long == {}


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


TOP = ROOT / "pipeline" / "__init__.py"
"""The one package that offers something: `from pipeline import Session`."""


@pytest.mark.parametrize("path", [path for path in PRODUCT if path.name == "__init__.py" and path != TOP], ids=name_of)
def test_a_package_exports_nothing_so_that_a_name_has_one_import_path(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert [node for node in body if not isinstance(node, ast.Expr)] == []


def test_the_top_package_offers_the_session_and_its_version_and_loads_neither_numpy_nor_pydantic() -> None:
    assert pipeline.__all__ == ["Session", "__version__"]
    code = "import sys, pipeline; print(sorted({'numpy', 'pydantic', 'torch', 'ray'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own line
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_module_shadows_the_standard_library_or_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "misc", "manager", "common", "types"}
