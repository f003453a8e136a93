"""Fixtures that several suites share."""

from collections.abc import Iterator

import pytest

from tests.broker import Broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real broker for the whole session. Tests that stop or kill one start their own."""
    with Broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
