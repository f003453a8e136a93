"""The rules of the house that no linter knows: sizes of files and functions, empty packages."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config_trees import ROOT

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_VERB_LINES = 120
"""Of a file of the command line, which parses, calls one use case and prints what it returns."""

PRODUCT = sorted(path for package in ("pipeline", "actors") for path in (ROOT / package).rglob("*.py"))
ALL = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline" / "cli").glob("*.py")), ids=name_of)
def test_the_command_line_is_thin(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_VERB_LINES
    assert not re.search(
        r"^\s*(from|import) (ray|kafka|qdrant|torch|pipeline\.(stores|sources|live))", text, re.MULTILINE
    )


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: lines for node in functions if (lines := _code_lines(node)) > MAX_FUNCTION_LINES}
    assert long == {}


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


PACKAGES = [path for path in PRODUCT if path.name == "__init__.py" and path != ROOT / "pipeline" / "__init__.py"]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_exports_nothing_so_that_a_name_has_one_import_path(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert all(isinstance(node, ast.Expr) for node in body)


def test_the_root_package_exports_the_session_and_loads_nothing() -> None:
    heavy = ("numpy", "pydantic", "torch", "ray", "kafka", "qdrant_client", "pipeline.session")
    code = f"import sys, pipeline; print([name for name in {heavy} if name in sys.modules], pipeline.Session.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603 - our own
    assert found.stdout.split("\n")[0] == "[] Session"


NOQA = re.compile(r"#\s*noqa:\s*[A-Z0-9]+(?:,\s*[A-Z0-9]+)*(.*)$")


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_rule_that_is_ignored_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [number for number, line in enumerate(lines, 1) if (found := NOQA.search(line)) and " - " not in found[1]]
    assert bare == []


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_module_shadows_the_standard_library_or_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "misc", "manager", "common", "types"}
