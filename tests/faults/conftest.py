"""Fixtures of the fault rows, and which of them `make test` runs."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.faults.harness import Ground, Rig
from tests.faults.results import ALL

# The tests' own clients meet brokers that were stopped on purpose.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the rows marked `faults` to `make faults`."""
    if os.environ.get(ALL) == "all":
        return
    left = [item for item in items if item.get_closest_marker("faults")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """One broker and one store server for a module's rows."""
    with Ground(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def make_rig(ground: Ground) -> Iterator[Callable[..., Rig]]:
    """Makes rigs with changes to their configuration, on the module's ground; the faults of before are over."""
    with ExitStack() as rigs:

        def make(**changes: Any) -> Rig:
            return rigs.enter_context(Rig(ground, f"row{next(_numbers)}", **changes))

        ground.heal()
        yield make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A rig with the usual configuration."""
    return make_rig()


_numbers = itertools.count()
