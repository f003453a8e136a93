"""Fuzzes one target until its time is up: `python -m tests.fuzz.process NAME LIBFUZZER_ARGUMENT…`.

A process of its own: libFuzzer ends it, at the first finding or when it is done.
"""

import sys

import atheris

with atheris.instrument_imports(include=["pipeline"]):
    from tests.fuzz.table import TARGETS

if __name__ == "__main__":
    _, name, *arguments = sys.argv
    atheris.Setup([name, *arguments], TARGETS[name].check)
    atheris.Fuzz()
