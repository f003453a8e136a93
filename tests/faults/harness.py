"""What a row of the fault table stands on, and how one is written.

A row is a test that disturbs real processes and ends with the oracle:

    def test_what_must_hold(rig: Rig) -> None:
        with fault_run(2, seed=0) as run, rig.worker() as first:
            rig.send(2_000)                  # journaled records, each with a key of its own
            rig.wait_midstream()
            first.kill()                     # the fault
            run.healed()                     # the clock of the recovery starts
            with rig.worker(1):
                rig.wait_progress(run)       # and stops: every unfinished partition has moved
                rig.check(run)               # the promise: waits for the end, compares everything, counts duplicates

Its line in `table.py` names the test. Processes of the pipeline reach broker and store server through
proxies (`ground.kafka`, `ground.qdrant`); journal and oracle go past them. `Rig` runs light workers
without Ray; `AppRig` runs the whole application.
"""

import itertools
import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import kafka.errors as kafka_errors
from tenacity import retry, retry_if_exception_type, stop_after_delay

from pipeline.config.load import load_config
from pipeline.config.source import SourceConfig
from pipeline.errors import TransientError
from pipeline.interfaces import Store
from pipeline.records.record import uuid_text
from pipeline.sources.client.admin import create_topics
from pipeline.stores.open import open_store
from tests.broker import Broker, free_port
from tests.e2e.differences import Difference
from tests.e2e.harness import NUM_PARTITIONS, PATIENCE_S, end, start_python, wait_until, write_config
from tests.e2e.oracle import Journal, Placed
from tests.faults.proxy import Proxy
from tests.faults.results import FaultRun, TooLateError
from tests.faults.sampler import Sampler
from tests.faults.worker import EMBEDDED
from tests.qdrant_server.process import QdrantServer

SESSION_TIMEOUT_S = 6.0
"""As `write_config` sets it."""

STORE_TIMEOUT_S = 4.0
"""A store that hangs is noticed after so long; the product's 30 s would only make rows slower."""

# The client of a server that was away reconnects in its own time.
patiently = retry(retry=retry_if_exception_type(TransientError), stop=stop_after_delay(PATIENCE_S), reraise=True)

Offsets = Mapping[tuple[str, int], int]


class Ground:
    """A broker and a store server of its own, a proxy before each. Whatever a row does to them, it mends."""

    broker: Any
    """A `Broker`; where a row needs errors that no broker makes on request, a `MockCluster`."""
    kafka: Any
    """What members connect to: a `Proxy`, or the mock itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker(folder / "kafka")
        self.server = QdrantServer(folder / "qdrant")
        proxied = free_port()
        self.kafka = Proxy(proxied)
        self.qdrant = Proxy(0)
        self.broker.advertise(self.kafka.port, proxied)

    def __enter__(self) -> Self:
        self.broker.start()
        self.server.start()
        self.qdrant.target = self.server.port
        self.kafka.start()
        self.qdrant.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kafka.stop()
        self.qdrant.stop()
        self.server.stop()
        self.broker.kill()

    def create_topics(self, source: SourceConfig) -> None:
        """Creates the topics of a configuration that leads past the proxy."""
        create_topics(source, NUM_PARTITIONS)

    def heal(self) -> None:
        """Passes everything on again, in both proxies."""
        self.kafka.heal()
        self.qdrant.heal()


class WorkerProcess:
    """One member: `tests.faults.worker` as a process. Ends with SIGTERM at the end of its `with`."""

    def __init__(self, rig: "Rig", instance: int, config: Path | None = None, *options: str, **environ: str) -> None:
        folder = rig.folder
        number = next(rig.numbers)
        self._state = folder / f"worker-{number}.json"
        self._log = folder / f"worker-{number}.log"
        arguments = ["--folder", str(folder), "--instance", str(instance), "--state", str(self._state), *options]
        self.process: subprocess.Popen[bytes] = start_python(
            "-m", "tests.faults.worker", str(config or rig.path), *arguments, log=self._log, **rig.environ, **environ
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        end(self.process)

    @property
    def pid(self) -> int:
        return self.process.pid

    def state(self) -> dict[str, Any]:
        """What the member said last of itself, see `tests.faults.worker.tell`."""
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return dict(json.loads(self._state.read_text()))
        return {"ready": False, "held": [], "received": 0, "retries": 0, "stale": 0, "dropped": 0, "letters": 0}

    @property
    def held(self) -> list[tuple[str, int]]:
        return [(topic, number) for topic, number in self.state()["held"]]

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output()
            return bool(self.state()["ready"])

        wait_until(ready, "the worker holds its partitions")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: it holds what it holds and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Returns the exit code of a member that ends by itself."""
        return self.process.wait(timeout_s)

    def output(self) -> str:
        return self._log.read_text(errors="replace")


class Rig:
    """One pipeline: its configuration and topics, its journal, and a client of the store that passes no proxy.

    `changes` are those of `write_config`. Everything is called from one thread.
    """

    def __init__(self, ground: Ground, name: str, **changes: Any) -> None:
        self.ground = ground
        self.folder = ground.folder / name
        self.folder.mkdir()
        self.failpoints = self.folder / "failpoints"
        self.failpoints.mkdir()
        self.environ = {"REFRACT_FAILPOINTS": str(self.failpoints)}
        self.numbers = itertools.count()
        self.name = name
        self._changes = {
            "source__bootstrap_servers": [ground.kafka.address],
            "store": {"type": "qdrant", "url": f"http://{ground.qdrant.address}", "timeout_s": STORE_TIMEOUT_S},
            "models__hash__overrides": {"delay_ms_per_batch": 100},  # 320 tickets a second for each worker
            "limits__max_batch_records": 64,
            # Rigs share a server.
            **{f"tasks__{task}__collection": f"{name}-{task}" for task in ("urgency", "technical_issue", "audit")},
            **changes,
        }
        self._write()
        self.journal = Journal(
            self.config, bootstrap_servers=ground.broker.bootstrap_servers, log=self.folder / "journal.jsonl"
        )
        ground.create_topics(self.journal.source)
        # The collections are made here, past any fault; the members find them.
        self.store: Store = open_store(
            self.config.store.model_copy(update={"url": ground.server.url}), self.config.pipeline
        )
        self.store.open(self.journal.tasks.values())
        self.sampler = Sampler(self.journal, self.store)
        self._keys = (f"R-{number}" for number in itertools.count())
        self._embedded = self._needed = 0

    def __enter__(self) -> Self:
        self.sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sampler.__exit__()
        self.journal.close()
        self.store.close()

    # -- what happens

    def worker(self, instance: int = 0, *options: str, config: Path | None = None, **environ: str) -> WorkerProcess:
        """Starts a member; use it in a `with`."""
        return WorkerProcess(self, instance, config, *options, **environ)

    def send(self, count: int, version: int = 1) -> list[str]:
        """Journals and sends tickets with keys that nobody used before; returns the keys."""
        keys = list(itertools.islice(self._keys, count))
        for key in keys:
            self.journal.ticket(key, version)
        self.journal.settle()
        return keys

    def arm(self, place: str, action: str) -> None:
        """Sets a failpoint, see `pipeline.failpoints`: the next process that gets to the place does it, once."""
        for old in self.failpoints.glob(f"{place}.*"):
            old.unlink()
        beside = self.folder / "failpoint"
        beside.write_text(action)
        beside.rename(self.failpoints / place)

    def wait_struck(self, place: str) -> int:
        """Returns the process that did what an armed failpoint said."""

        def struck() -> list[Path]:
            return list(self.failpoints.glob(f"{place}.*"))

        return int(wait_until(struck, f"somebody gets to {place}")[0].suffix[1:])

    # -- what is seen

    def committed(self) -> Offsets | None:
        """Returns the group's offsets, None while the broker is away."""
        try:
            return dict(self.ground.broker.committed(self.config.source.group_id))
        except (kafka_errors.KafkaError, OSError):
            return None

    def num_committed(self) -> int:
        return sum((self.committed() or {}).values())

    def wait_midstream(self, share: float = 0.15) -> None:
        """Returns when a part of what was sent since the last check is finished; fails when nothing is left."""
        total, start = self.journal.num_records(), self._finished
        wait_until(lambda: self.num_committed() >= start + share * (total - start), "a part is finished")
        if self.num_committed() >= total:
            raise TooLateError("everything is finished already: send more records")

    _finished = 0

    def wait_progress(self, run: FaultRun, timeout_s: float = PATIENCE_S) -> None:
        """Stops the run's clock when every partition with unfinished records has moved.

        "Moved" counts from this call, so call it right after `run.healed()`.
        """
        told = wait_until(self.committed, "the broker tells offsets")
        before = told or {}
        if not (waiting := {place for place, end in self.journal.ends.items() if before.get(place, 0) < end}):
            raise TooLateError("everything was finished before the fault ended: send more records")

        def moved() -> bool:
            now = self.committed() or {}
            return all(now.get(place, 0) > before.get(place, 0) for place in waiting)

        wait_until(moved, f"partitions move on (from {dict(before)})", timeout_s=timeout_s)
        run.recovered()

    def wait_finished(self, timeout_s: float = PATIENCE_S) -> None:
        """Returns when the group stands at the end of every partition."""
        self.journal.settle()
        ends = self.journal.ends

        def finished() -> bool:
            now = self.committed() or {}
            return all(now.get(place, 0) >= end for place, end in ends.items())

        try:
            wait_until(finished, "every offset is committed", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; ends {ends}, committed {self.committed()}") from None
        self._finished = self.num_committed()

    def check(self, run: FaultRun, timeout_s: float = PATIENCE_S) -> None:
        """The promise: waits until everything is finished, compares everything, and counts what was done twice."""
        self.wait_finished(timeout_s)
        self.compare(run)
        run.duplicates += self.take_duplicates()

    def compare(self, run: FaultRun) -> None:
        """Asks the oracle, and the sampler for what it has seen since the last time."""
        run.compared(self._differences())
        run.compared(self.sampler.take())

    def compare_without(self, run: FaultRun, missing: Callable[[Placed], bool]) -> None:
        """The same while some records are not read yet: they alone may be missing. Each needs a key of its own."""
        allowed = {uuid_text(record.point) for record in self.journal.placed if missing(record)}
        found = self._differences()
        run.compared(difference for difference in found if difference.what.partition(" ")[0] not in allowed)

    @patiently
    def _differences(self) -> list[Difference]:
        return self.journal.compare(self.store)

    def forget(self, gone: Callable[[Placed], bool]) -> None:
        """Takes records back that the topic has lost for good. Each needs a key of its own."""
        for record in filter(gone, self.journal.placed):
            for states in self.journal.states.values():
                states.pop(record.point, None)
        self.journal.placed = [record for record in self.journal.placed if not gone(record)]

    def reconfigure(self, **changes: Any) -> None:
        """Changes the configuration for members started from now on, and for the journal."""
        self._changes |= changes
        self._write()
        self.journal.config = self.config

    def _write(self) -> None:
        self.path = write_config(self.folder, self.ground.broker, self.name, **self._changes)
        self.config = load_config(self.path)

    def take_duplicates(self) -> int:
        """Returns how many records were embedded again since the last call.

        Exact where each record has a key of its own; else a lower bound, for of several versions of a
        key in one batch only the newest is embedded.
        """
        embedded, needed = self.num_embedded(), self.journal.num_embeddings
        again = (embedded - self._embedded) - (needed - self._needed)
        self._embedded, self._needed = embedded, needed
        return max(0, round(again / len(self.config.source.topics[self.journal.tickets].tasks)))

    def num_embedded(self) -> int:
        """Embeddings computed so far by all members, killed ones included."""
        path = self.folder / EMBEDDED
        return path.stat().st_size if path.exists() else 0
