"""Configurations for tests: the null example, with single keys changed."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.load import parse_config, read_tree
from pipeline.config.pipeline import Config

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"

ABSENT = object()
"""As a value: take the key away."""


def tree(**changes: Any) -> dict[str, Any]:
    """Returns configs/null.yaml as written; `a__b=1` sets key b of a."""
    result = copy.deepcopy(read_tree(CONFIGS / "null.yaml"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = result
        for name in parents:
            section = section.setdefault(name, {})
        if value is ABSENT:
            del section[last]
        else:
            section[last] = value
    return result


def parsed(environ: Mapping[str, str] | None = None, /, **changes: Any) -> Config:
    """Returns the changed tree as a `Config`."""
    return parse_config(tree(**changes), environ=environ or {}, origin="test.yaml")
