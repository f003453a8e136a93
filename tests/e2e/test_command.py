"""`refract run` as a process: killed, drained on SIGTERM, interrupted, and each time continued by the next run."""

from pathlib import Path

import pytest

from pipeline.interfaces import StoredPoint
from pipeline.stores.open import open_store
from tests.broker import Broker
from tests.e2e.harness import PATIENCE_S, CommandApp, end, journal_of, start_python, wait_until, write_config
from tests.e2e.oracle import Journal, all_points, sources
from tests.faults.results import fault_run

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.ray]

NUM_RECORDS = 6_000
"""Each with a key of its own, so that positions can be compared with points."""

GRACE_S = 30.0
"""What an orchestrator allows a container between SIGTERM and SIGKILL."""

TASKS = ("urgency", "technical_issue")


@pytest.fixture(scope="module")
def path(folder: Path, broker: Broker) -> Path:
    return write_config(
        folder,
        broker,
        "command",
        models__hash__overrides={"delay_ms_per_batch": 100},
        limits__max_batch_records=128,
    )


def stored(journal: Journal) -> dict[str, list[StoredPoint]]:
    """Returns every point of each task, read after the app has let the store's directory go."""
    store = open_store(journal.config.store, journal.config.pipeline)
    try:
        return {task: list(all_points(store, journal.tasks[task].collection).values()) for task in TASKS}
    finally:
        store.close()


def embedded(app: CommandApp) -> int:
    return int(app.tickets()["tasks"]["urgency"]["embedded"])


def test_each_run_continues_where_the_last_one_stopped(path: Path, broker: Broker) -> None:
    with journal_of(path) as journal, fault_run(46) as run:
        for number in range(NUM_RECORDS):
            journal.ticket(f"C-{number}", 1)
        journal.settle()

        with CommandApp(path, broker, journal) as killed:
            killed.wait_midstream(0.2)
            killed.kill_command()
            killed_at = killed.num_committed()

            with CommandApp(path, broker, journal) as app:
                app.finished = killed_at
                app.wait_midstream(0.2)
                run.healed()
                assert app.terminate() == 0, app.output()
                run.recovered()  # drained, and gone
                run.within(GRACE_S)
                assert "Traceback" not in app.output()
        drained_at = app.num_committed()
        assert killed_at < drained_at < NUM_RECORDS
        committed = app.committed()
        for task, points in stored(journal).items():
            places = sources(points)
            expected = {(*partition, offset) for partition, end in committed.items() for offset in range(end)}
            assert expected <= places, f"{task}: committed, and not stored"
            # What lies beyond was stored by the killed run, which could not commit it.
            assert len(points) == len(places) < NUM_RECORDS

        with CommandApp(path, broker, journal) as app:
            app.wait_finished()
            wait_until(lambda: embedded(app) >= NUM_RECORDS - drained_at, "what was left is embedded")
            run.duplicates = embedded(app) - (NUM_RECORDS - drained_at)
            assert run.duplicates == 0, "only what was left is embedded"
            assert app.interrupt() == 0, app.output()
        store = open_store(journal.config.store, journal.config.pipeline)
        try:
            run.compared(journal.compare(store))
        finally:
            store.close()
        assert app.committed() == journal.ends


def test_sigterm_while_the_actors_start_ends_the_command_in_order(path: Path) -> None:
    log = path.with_name("terminated.log")
    process = start_python("-m", "pipeline.cli", "run", str(path), log=log)
    try:
        wait_until(lambda: "starting the actors" in log.read_text(), "Ray has started")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        end(process)
