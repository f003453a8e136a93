"""Fixtures that several suites share, and what `make test` leaves to `make slow`."""

import os
from collections.abc import Iterator

import pytest

from tests.broker import Broker

SLOW = "REFRACT_SLOW"
"""Environment variable: when it is set, tests that take minutes are run, too."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves what is marked `slow` to `make slow`."""
    left = [] if os.environ.get(SLOW) else [item for item in items if item.get_closest_marker("slow")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real broker for the whole session. Tests that stop or kill one start their own."""
    with Broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
