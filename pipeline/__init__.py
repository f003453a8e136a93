"""Refract: records in from Kafka, one instruction-conditioned embedding per task out to Qdrant.

`from pipeline import Session` is the way in from Python.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.session import Session

__all__ = ["Session", "__version__"]


def __getattr__(name: str) -> object:
    # Found when it is asked for: `import pipeline.anything` must not load what a session needs.
    if name == "Session":
        return import_module("pipeline.session").Session
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
