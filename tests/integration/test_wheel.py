"""The built wheel holds everything: packages, data files, the entry point.

The wheel is installed without its dependencies into an environment of its own, which borrows those of
the environment the tests run in: installing torch once more would take minutes and gigabytes and prove
nothing about our wheel. What must not be borrowed is this checkout; an editable install puts it on the
path by a `.pth` file, and only the *contents* of the borrowed folder are visible to the new
environment, because a path added by a `.pth` file does not have its own `.pth` files read.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.config_trees import ROOT

SOURCES = ("pipeline", "actors", "pyproject.toml", "README.md", "LICENSE")


def run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder outside the checkout, so that nothing is found by chance."""
    with tempfile.TemporaryDirectory(prefix="refract-wheel-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    """Built from a copy: the build leaves nothing in the checkout, and other runs do not meet it there."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    built = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist"], source)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, folder: Path) -> Path:
    """The `bin` folder of an environment that holds the wheel."""
    environment = folder / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    [site_packages] = environment.glob("lib/python*/site-packages")
    installed = run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel], folder
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    (site_packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return environment / "bin"


@pytest.mark.parametrize(
    "name",
    [
        "pipeline/engine/catalogue.json",
        "pipeline/demo/tickets.jsonl",
        "pipeline/py.typed",
        "actors/py.typed",
        "pipeline/cli/main.py",
        "actors/app.py",
    ],
)
def test_the_wheel_holds_code_and_data(name: str, wheel: Path) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_nothing_but_the_packages_and_their_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pipeline", "actors", "refract"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.endswith(".pyc") for name in names)


def test_the_packages_come_from_the_wheel_not_from_the_checkout(scripts: Path, folder: Path) -> None:
    code = "import actors, pipeline, sys; print(pipeline.__file__, actors.__file__, *sys.path, sep='\\n')"
    printed = run([scripts / "python", "-c", code], folder)
    assert printed.returncode == 0, printed.stderr
    pipeline_file, actors_file, *path = printed.stdout.splitlines()
    environment = scripts.parent.resolve()
    assert Path(pipeline_file).resolve().is_relative_to(environment)
    assert Path(actors_file).resolve().is_relative_to(environment)
    assert str(ROOT) not in path


def test_the_installed_program_shows_its_help(scripts: Path, folder: Path) -> None:
    done = run([scripts / "refract", "--help"], folder)
    assert done.returncode == 0, done.stderr
    for verb in ("check", "run", "produce", "search", "status"):
        assert verb in done.stdout


def test_the_installed_program_checks_a_configuration(scripts: Path, folder: Path) -> None:
    shutil.copy(ROOT / "configs" / "null.yaml", folder)
    done = run([scripts / "refract", "check", "null.yaml", "--offline"], folder)
    assert done.returncode == 0, done.stderr
    assert "technical_issue__" in done.stdout


def test_the_installed_catalogue_and_demo_can_be_read(scripts: Path, folder: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "from pipeline.engine.catalogue import catalogue\n"
        "assert len(catalogue()) > 100\n"
        "assert len((files('pipeline.demo') / 'tickets.jsonl').read_text().splitlines()) >= 600\n"
    )
    done = run([scripts / "python", "-c", code], folder)
    assert done.returncode == 0, done.stderr
