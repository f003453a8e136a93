"""The rules of the house that no linter knows: sizes of files and functions, empty packages, a complete README."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.main import get_command

from pipeline import metrics
from pipeline.cli.main import app
from pipeline.config.describe import config_keys
from tests.config_trees import ROOT

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

PRODUCT = sorted(path for package in ("pipeline", "actors") for path in (ROOT / package).rglob("*.py"))
ALL = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]
README = ROOT / "README.md"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


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


def verbs() -> Iterator[str]:
    """`check`, `dlq list` …"""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined] # the root is a group
        children = getattr(command, "commands", None)
        if children:
            yield from (f"{name} {child}" for child in children)
        else:
            yield name


@pytest.mark.parametrize("verb", list(verbs()))
def test_readme_names_every_verb(verb: str, readme: str) -> None:
    assert f"refract {verb}" in readme


@pytest.mark.parametrize("key", [doc.key for doc in config_keys()])
def test_readme_names_every_configuration_key(key: str, readme: str) -> None:
    assert f"`{key}`" in readme


def metric_names() -> list[str]:
    """Every metric as Prometheus shows it; a counter's name ends in _total."""
    registry = CollectorRegistry()
    for kind in (metrics.IngestMetrics, metrics.EmbedMetrics, metrics.ApiMetrics):
        kind(registry)
    return sorted(family.name + ("_total" if family.type == "counter" else "") for family in registry.collect())


@pytest.mark.parametrize("name", metric_names())
def test_a_metric_is_named_by_the_rule_and_in_readme(name: str, readme: str) -> None:
    assert re.fullmatch(r"refract_[a-z0-9_]+", name)
    assert f"`{name}`" in readme


def test_readme_names_every_target_of_make(readme: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    missing = [target for target in phony.split() if f"make {target}" not in readme]
    assert missing in ([], ["help"])
