"""Brings up Ray and the app on it, and takes both down again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from actors.boot import start_ray
from pipeline.config.load import load_config
from pipeline.usecases.running import Note

if TYPE_CHECKING:
    from actors.supervisor import RunningApp


@contextmanager
def launched(path: Path, address: str | None, note: Note) -> "Iterator[RunningApp]":
    """Yields the running app of a configuration file; afterwards it finishes what is in flight and stops.

    Args:
        path: The configuration file.
        address: Ray cluster to join; None for `ray.address`, or a cluster of its own.
        note: Called with a line at each step.

    Raises like `start_ray` and `RunningApp.start`.
    """
    config = load_config(path)
    start_ray(config, address or config.ray.address, note)

    # Only now: it brings Serve, which has been imported while Ray started.
    from actors.supervisor import RunningApp  # noqa: PLC0415 - see above

    app = RunningApp(path, address)
    try:
        app.start(note)
        yield app
    finally:
        app.stop(note)
