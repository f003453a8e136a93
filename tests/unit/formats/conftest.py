from collections.abc import Iterator

import pytest

from tests.registry import Registry, serve_registry


@pytest.fixture(scope="session")
def running_registry() -> Iterator[Registry]:
    with serve_registry() as registry:
        yield registry


@pytest.fixture
def registry(running_registry: Registry) -> Iterator[Registry]:
    """An empty registry that answers."""
    url = running_registry.url
    running_registry.__init__(url=url)  # type: ignore[misc]  # as new, at the same address
    yield running_registry
    running_registry.away = None
