"""The command line as a whole: exit codes, one message for an error, nothing heavy before a verb runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import yaml

from pipeline.cli import main as main_module
from pipeline.cli.exits import MEANINGS, ExitCode
from pipeline.cli.main import invoke
from pipeline.errors import ConfigError, EnvironmentFault, RefractError, TransientError
from tests.config_trees import CONFIGS, ROOT

NULL = str(CONFIGS / "null.yaml")


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    for code, meaning in MEANINGS.items():
        assert f"{code.value:<4}{meaning}" in shown
    assert set(MEANINGS) == set(ExitCode)


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([]) == ExitCode.OK
    assert "Commands:" in capsys.readouterr().out


def test_what_is_logged_stays_out_of_what_a_verb_prints(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    assert invoke(["config", "--help"]) == ExitCode.OK
    structlog.get_logger().warning("An event.")
    printed = capsys.readouterr()
    assert "An event." in printed.err
    assert "An event." not in printed.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("refract ")


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [(["chekk"], "'check'"), (["check", "--ofline", "x"], "--offline"), (["dlq", "lst"], "'list'")],
)
def test_a_mistyped_verb_or_option_suggests_the_nearest(
    args: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(args) == ExitCode.CONFIG
    printed = capsys.readouterr()
    assert suggestion in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a\nb"), ExitCode.CONFIG),
        (TransientError("away"), ExitCode.UNREACHABLE),
        (EnvironmentFault("mend me"), ExitCode.FAILED),
        (RefractError("no"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError("oops"), ExitCode.FAILED),
    ],
)
def test_every_class_of_error_has_its_exit_code_and_no_traceback(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_path: Path) -> None:
        raise error

    monkeypatch.setattr("pipeline.config.load.load_config", fail)
    assert invoke(["serve-config", "x"]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert all(line.startswith("error: ") for line in printed.err.splitlines())
    assert printed.out == ""


def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRACT_DEBUG", "1")
    with pytest.raises(ConfigError):
        invoke(["serve-config", "absent.yaml"])


def test_control_characters_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    invoke(["serve-config", "\x1b[2Jabsent.yaml"])
    assert "\x1b[2J" not in capsys.readouterr().err


def test_the_program_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["refract", "serve-config", "absent.yaml"])
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == ExitCode.CONFIG


HEAVY = {"ray", "kafka", "torch", "transformers", "qdrant_client", "qdrant_edge", "grpc", "pyarrow"}


@pytest.mark.parametrize(
    "code",
    [
        "from pipeline.cli.main import invoke; invoke(['--help'])",
        f"from pipeline.cli.main import invoke; invoke(['check', {NULL!r}, '--offline'])",
        f"from pipeline.cli.main import invoke; invoke(['search', {NULL!r}, '--task', 'urgency', 'x'])",
        "import pipeline.session",
        "from pipeline.usecases import bench, check, compare, demo, letters, produce, tasks, rewind",
    ],
    ids=["help", "check", "search", "session", "use cases"],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code: str) -> None:
    whole = f"import sys\n{code}\nsys.exit(','.join({HEAVY!r} & sys.modules.keys()) or 0)"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", whole], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_python_m_pipeline_cli_is_refract() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "serve-config", "absent.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == "error: absent.yaml: cannot be read (No such file or directory)\n"


def test_serve_config_is_what_serve_deploy_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["serve-config", NULL]) == ExitCode.OK
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["http_options"] == {"host": "127.0.0.1", "port": 8000}
    [application] = tree["applications"]
    assert application["import_path"] == "actors.app:build"
    assert application["args"] == {"config": str(CONFIGS / "null.yaml")}


def test_config_table_and_schema_speak_of_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["config", "table"]) == ExitCode.OK
    assert "| `source.group_id` | string | required |" in capsys.readouterr().out
    assert invoke(["config", "schema"]) == ExitCode.OK
    assert '"TopicConfig"' in capsys.readouterr().out
