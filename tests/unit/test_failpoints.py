"""A failpoint strikes once, where its file lies, and is nothing without a folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import failpoints
from tests.config_trees import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(failpoints, "FOLDER", str(tmp_path))
    return tmp_path


def test_place_without_a_file_is_passed(folder: Path) -> None:
    failpoints.reach("after_embed")
    assert list(folder.iterdir()) == []


def test_armed_place_strikes_once_and_says_who_was_there(folder: Path) -> None:
    (folder / "after_embed").write_text("sleep 1")
    begun_s = time.monotonic()
    failpoints.reach("after_upsert")
    failpoints.reach("after_embed")
    failpoints.reach("after_embed")
    assert 1 <= time.monotonic() - begun_s < 2
    assert [path.name for path in folder.iterdir()] == [f"after_embed.{os.getpid()}"]


@pytest.mark.parametrize(("named", "expected"), [(True, failpoints.EXIT_CODE), (False, 0)])
def test_process_ends_only_where_the_environment_names_the_folder(
    tmp_path: Path, *, named: bool, expected: int
) -> None:
    (tmp_path / "before_commit").write_text("exit")
    command = [sys.executable, "-c", "from pipeline import failpoints; failpoints.reach('before_commit')"]
    environ = {name: value for name, value in os.environ.items() if name != "REFRACT_FAILPOINTS"}
    environ |= {"REFRACT_FAILPOINTS": str(tmp_path)} if named else {}
    assert subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode == expected  # noqa: S603
