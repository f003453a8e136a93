"""A reader who follows one page from its top to its end: types its commands, runs its Python, keeps its files."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import orjson
import psutil
import pytest
import yaml

from pipeline.config.load import parse_config, read_tree
from tests.broker import free_port
from tests.config_trees import CONFIGS, ROOT
from tests.docs.markdown import Block

PATIENCE_S = 240.0
NUM_COLUMNS = 120
PROGRAMS = Path(sys.executable).parent
ENVIRON = {
    "KAFKA_USERNAME": "u",
    "KAFKA_PASSWORD": "p",
    "QDRANT_API_KEY": "q",
    "REFRACT_API_KEY": "r",
    "SCHEMA_REGISTRY_SECRET": "s",
}
"""What the examples take from the environment."""

_PORT = 8000
_BAR = re.compile(r"[│┃|]")
"""Between the cells of a table's row; a terminal decides which."""

_NOT_WORDS = re.compile(r"[^\w#%/.:,?!'-]+")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")

_INTERPRETER = """
import json, sys
space = {"__name__": "__main__"}
for line in sys.stdin:
    place, code = json.loads(line)
    exec(compile(code, place, "exec"), space)
    print(chr(0), flush=True)
"""


class Reader:
    """One reader of one page, in a folder with the checkout's configs and a file of tickets. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._app: _Terminal | None = None
        self._python: subprocess.Popen[str] | None = None
        _furnish(folder, self._port)
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "COLUMNS": str(NUM_COLUMNS),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "TERM": "dumb",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.stop_app()
        elif self._app is not None:
            self._app.end()
        if self._python is not None:
            self._python.kill()
            self._python.wait()

    def follow(self, block: Block) -> dict[str, str]:
        """Does what the block says; returns the output of each command.

        Fails where it does not work, or where another output is shown than there is.
        """
        outputs = {}
        if block.directive == "stop the app":
            self.stop_app()
        if block.directive == "file":
            path = self._folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "console":
            for command, shown in block.commands():
                outputs[command] = self._type(command)
                compare_shapes(shown, outputs[command], block.place)
        return outputs

    def stop_app(self) -> None:
        """Presses Ctrl-C in the terminal of the app, if there is one."""
        if self._app is not None:
            app, self._app = self._app, None
            assert app.end() == 0

    def _type(self, command: str) -> str:
        """Runs one command and returns its output. An app stays, in a terminal of its own."""
        command = command.replace(f"localhost:{_PORT}", f"localhost:{self._port}")
        words = shlex.split(command)
        if words[0] == "make":
            given = dict(word.split("=", 1) for word in words[2:])
            recipe = _recipe(words[1:])
            if words[1] != "demo":
                return ""  # known to make; what it does is tested by itself
            command, self._environ = recipe, {**self._environ, **given}
        if words[:2] in (["make", "demo"], ["refract", "demo"]):
            self._app = _Terminal(command, self._folder, self._environ)
            return self._app.wait_for("Ctrl-C stops it.")
        done = subprocess.run(  # noqa: S603 - a command of our own documentation
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def _run_python(self, block: Block) -> None:
        """Runs the block in the page's interpreter, which keeps its names from block to block."""
        if self._python is None:
            self._python = subprocess.Popen(  # noqa: S603 - the documentation's own code
                [sys.executable, "-c", _INTERPRETER],
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps([block.place, block.text]) + "\n")
        self._python.stdin.flush()
        printed: list[str] = []
        for line in self._python.stdout:
            if line == "\0\n":
                return
            printed.append(line)
        pytest.fail(f"{block.place} ended the interpreter:\n{''.join(printed)}")


class _Terminal:
    """A command in a terminal of its own, so that it stays until somebody ends it."""

    def __init__(self, command: str, folder: Path, environ: dict[str, str]) -> None:
        self._screen, line = pty.openpty()
        termios.tcsetwinsize(line, (60, NUM_COLUMNS))
        self._process = subprocess.Popen(  # noqa: S603 - a command of our own documentation
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env={**environ, "TERM": "xterm"},
            stdin=line,
            stdout=line,
            stderr=line,
            start_new_session=True,
        )
        os.close(line)

    def wait_for(self, words: str) -> str:
        """Returns everything shown until the words are there."""
        shown, deadline_s = "", time.monotonic() + PATIENCE_S
        while words not in shown:
            assert time.monotonic() < deadline_s, shown
            assert self._process.poll() is None, shown
            if select.select([self._screen], [], [], 1.0)[0]:
                with suppress(OSError):
                    shown += os.read(self._screen, 65_536).decode(errors="replace")
        return _ANSI.sub("", shown).replace("\r", "")

    def end(self) -> int | None:
        """Presses Ctrl-C and returns the exit code, None without one in time; nothing the command started is left."""
        family = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        try:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGINT)
            deadline_s = time.monotonic() + PATIENCE_S
            while self._process.poll() is None and time.monotonic() < deadline_s:
                # What it says at its end has to be read, or it would wait for that.
                if select.select([self._screen], [], [], 0.2)[0]:
                    with suppress(OSError):
                        os.read(self._screen, 65_536)
            return self._process.poll()
        finally:
            self._process.kill()
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            os.close(self._screen)


def _furnish(folder: Path, port: int) -> None:
    """The parts of a checkout that documentation speaks of, and `tickets.csv` as a file of the reader's own."""
    (folder / "configs").mkdir()
    for path in CONFIGS.glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace(f"port: {_PORT}", f"port: {port}")
        (folder / "configs" / path.name).write_text(text, encoding="utf-8")
    rows = [orjson.loads(line) for line in (ROOT / "pipeline/demo/tickets.jsonl").read_bytes().splitlines()]
    tickets = {row["id"]: row for row in rows if row.get("status") == "open"}
    columns = ("id", "title", "body", "updated_at", "status", "issue", "urgency", "language")
    lines = [",".join(columns)]
    for row in list(tickets.values())[:40]:
        cells = (str(row[name]).replace('"', '""') for name in columns)
        lines.append(",".join(f'"{cell}"' for cell in cells))
    (folder / "tickets.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _recipe(arguments: Iterable[str]) -> str:
    """Returns what make would run for a target that is installed already. Fails for a target it does not know."""
    done = subprocess.run(  # noqa: S603 - make, and nothing is run
        ["make", "--no-print-directory", "-n", "-C", str(ROOT), "-o", ".venv/.installed-demo", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(".venv/bin/", f"{PROGRAMS}/")


def compare_shapes(shown: Iterable[str], output: str, place: str) -> None:
    """Fails where a shown line has no line of its shape in the output: equal but for digits, blanks and frames.

    Of a table's row, each cell must be somewhere: processors round differently, and hits that are close change places.
    """
    real = {_shape(part) for line in output.splitlines() for part in (line, *_BAR.split(line))}
    missing = [
        line
        for line in shown
        if line.strip() not in {"", "..."}
        and not {_shape(part) for part in (_BAR.split(line) if _BAR.match(line) else [line])} <= real | {""}
    ]
    assert not missing, f"{place} shows what is not in the output:\n{chr(10).join(missing)}\n---\n{output}"


def _shape(line: str) -> str:
    return " ".join(_NOT_WORDS.sub(" ", re.sub(r"\d+", "0", line)).split())


def check_yaml(block: Block) -> None:
    """Fails where a YAML block is neither a configuration of its own nor a valid part of the one that it extends."""
    part = yaml.safe_load(block.text)
    if block.directive == "file":
        parse_config(part, environ=ENVIRON, origin=block.place)
        return
    base = ROOT / (block.value if block.directive == "onto" else "configs/laptop.yaml")
    parse_config(_merged(read_tree(base), part), environ=ENVIRON, origin=block.place)


def _merged(base: Any, part: Any) -> Any:
    """Sections are merged key by key; a list, a value and another type of store replace what was there."""
    if not isinstance(base, dict) or not isinstance(part, dict):
        return part
    if "type" in part and part["type"] != base.get("type"):
        return part
    return {**base, **{key: _merged(base.get(key), value) for key, value in part.items()}}
