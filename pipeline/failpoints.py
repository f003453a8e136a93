"""Named places of the pipeline at which a test makes the process die, stop or wait, to see that nothing is lost.

Off unless the environment names a folder in REFRACT_FAILPOINTS when the process starts. Then a file
there, named like a place, arms it: `exit` ends the process at once, `stop` stops it as SIGSTOP does,
`sleep 5` waits, `pass` does nothing. Whoever gets there first does it, once: it renames the file to
`<place>.<pid>`, which tells the test who and when.
"""

import os
import signal
import time
from pathlib import Path

FOLDER = os.environ.get("REFRACT_FAILPOINTS")

EXIT_CODE = 86


def reach(place: str) -> None:
    """Does what the file of this name says; without a folder, nothing, at the cost of one comparison."""
    if FOLDER is not None:
        _strike(Path(FOLDER), place)


def _strike(folder: Path, place: str) -> None:
    claimed = folder / f"{place}.{os.getpid()}"
    try:
        (folder / place).rename(claimed)
    except FileNotFoundError:
        return
    action, _, argument = claimed.read_text(encoding="utf-8").partition(" ")
    if action == "exit":
        os._exit(EXIT_CODE)
    if action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if action == "sleep":
        time.sleep(float(argument))
