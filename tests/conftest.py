"""Fixtures that several suites share, and what `make test` leaves to `make slow`."""

import os
import sys
from collections.abc import Iterator

import coverage
import pytest
from hypothesis import HealthCheck, settings

from tests.broker import Broker

# A busy machine may take its time: no property is about that.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SLOW = "REFRACT_SLOW"
"""Environment variable: when it is set, tests that take minutes are run, too."""

STATUS = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves what is marked `slow` to `make slow`."""
    left = [] if os.environ.get(SLOW) else [item for item in items if item.get_closest_marker("slow")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keeps the exit status, as other plugins left it."""
    session.config.stash[STATUS] = int(session.exitstatus or exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the process without taking the interpreter down.

    Native threads of Ray and librdkafka outlive what started them. One that woke during the teardown of the interpreter
    crashed a run whose tests had all passed. What crashes during a test is still seen.
    """
    if STATUS not in config.stash or not {"ray", "confluent_kafka"} & sys.modules.keys():
        return
    if measured := coverage.Coverage.current():
        measured.stop()
        measured.save()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[STATUS])


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real broker for the whole session. Tests that stop or kill one start their own."""
    with Broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running
