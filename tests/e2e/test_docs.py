"""Whoever follows README or a page of docs gets what it says: every block that names no other test is run here."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.config_trees import ROOT
from tests.docs.markdown import Block, blocks, pages
from tests.docs.reader import PATIENCE_S, Reader, compare_shapes
from tests.e2e.harness import environment

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

RUN = {"console", "python"}


def to_follow(page: Path) -> list[Block]:
    """Returns the blocks that a reader acts upon, with the files they are given."""
    found = [block for block in blocks(page) if block.language in RUN or block.directive == "file"]
    return [block for block in found if not block.tested_by]


PAGES = [page for page in pages() if to_follow(page)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_reader_gets_what_a_page_says(page: Path, tmp_path: Path) -> None:
    outputs: dict[str, str] = {}
    with Reader(tmp_path) as reader:
        for block in to_follow(page):
            outputs |= reader.follow(block)
    if demo := outputs.get("make demo"):
        [shown] = [block for block in blocks(ROOT / "README.md") if block.text.startswith("$ make demo\n")]
        compare_shapes(shown.commands()[0][1], demo, shown.place)


def test_the_demo_is_followed_somewhere() -> None:
    commands = [command for page in PAGES for block in to_follow(page) for command, _ in block.commands()]
    assert "make demo" in commands


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_takes_a_file_of_ones_own(tmp_path: Path) -> None:
    page = ROOT / "docs" / "quickstart.md"
    [block] = [block for block in blocks(page) if block.text.startswith("$ make demo DATA=")]
    with Reader(tmp_path) as reader:
        reader.follow(block)


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_from_its_top_to_its_end(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment(HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
