"""Fixtures of the end-to-end tests. Each module starts the application once at most, and reads its state afterwards."""

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The tests' own clients meet brokers that were stopped on purpose.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a module keeps its configuration and store."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def fresh_keys() -> Callable[[int], list[str]]:
    """Returns keys that no other test uses."""
    numbers: Iterator[int] = itertools.count()
    return lambda count: [f"T-{next(numbers)}" for _ in range(count)]
