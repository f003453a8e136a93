"""Fuzzes one target until its time is up: `python -m tests.fuzz.process NAME FOLDER LIBFUZZER_ARGUMENT…`.

A process of its own: libFuzzer ends it, at the first finding or when it is done.
"""

import sys
from hashlib import sha1
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline"]):
    from tests.fuzz.table import TARGETS


def main() -> None:
    """Hands over to libFuzzer, and keeps in FOLDER what fails: it does not where Python ends the process first."""
    name, folder, *arguments = sys.argv[1:]
    target = TARGETS[name]

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException:
            (Path(folder) / f"crash-{sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    atheris.Setup([name, f"-artifact_prefix={folder}/", *arguments], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
