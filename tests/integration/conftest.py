"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from tests.broker import Broker


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that the tests of one module may stop, kill, freeze and damage; they leave it running."""
    with Broker(tmp_path_factory.mktemp("own-kafka")) as running:
        yield running
