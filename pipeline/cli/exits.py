"""What the exit code of every verb means."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `refract`. A script may rely on them."""

    OK = 0
    FAILED = 1
    CONFIG = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed, or found differences",
    ExitCode.CONFIG: "the configuration or the command line is wrong",
    ExitCode.UNREACHABLE: "a broker, the store or the app cannot be reached",
    ExitCode.INTERRUPTED: "interrupted",
}
