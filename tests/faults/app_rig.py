"""The whole application on a ground of faults: two ingestors and two embedders under Serve, with a server as store."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness import InProcessApp, wait_until
from tests.e2e.oracle import Journal
from tests.faults.harness import Ground, Rig

ROLES = ("Ingestor", "Embedder", "Api", "Monitor")
NUM_REPLICAS = 2
COUNT_INTERVAL_S = 0.5
SETTLE_S = 1.3
"""Longer than the time between two reports of a replica."""

EMBEDDINGS = "refract_embeddings_total"


class EmbeddingCount:
    """Adds up what embedders have handed back to ingestors, those included that have died since.

    Read from `/metrics` every half second, so what an embedder did in its last second before a kill may
    be missing: then the number of records embedded again is a lower bound.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=5, trust_env=False)
        self._by_replica: dict[str, float] = {}
        self._counted = self._needed = 0
        self._stop = Event()
        self._thread = Thread(target=self._run, name="embeddings", daemon=True)
        self._thread.start()

    def total(self) -> int:
        """Returns the sum, once it has stood still: replicas report about once a second."""
        before = -1.0
        while (now := sum(self._by_replica.values())) != before:
            before = now
            time.sleep(SETTLE_S)
            self._look()
        return int(now)

    def again(self, journal: Journal) -> int:
        """Returns how many tickets were embedded more than once since the last call; see `Rig.take_duplicates`."""
        total, needed = self.total(), journal.num_embeddings
        again = (total - self._counted) - (needed - self._needed)
        self._counted, self._needed = total, needed
        return max(0, round(again / len(journal.config.source.topics[journal.tickets].tasks)))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    def _run(self) -> None:
        while not self._stop.wait(COUNT_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        with suppress(httpx.HTTPError):
            for family in text_string_to_metric_families(self._http.get("/metrics").text):
                for found in family.samples:
                    if found.name == EMBEDDINGS and found.labels["priority"] == "live":
                        replica = found.labels["replica"]
                        self._by_replica[replica] = max(self._by_replica.get(replica, 0), found.value)


class AppRig(Rig):
    """A rig whose members are the app's. Failpoints are armed as in a `Rig`: the app is started with their folder."""

    def __init__(self, ground: Ground, name: str, **changes: Any) -> None:
        super().__init__(
            ground,
            name,
            **{"models__hash__replicas": NUM_REPLICAS, "ray": {"ingestors": NUM_REPLICAS}, **changes},
        )
        self.app = InProcessApp(self.path, ground.broker, self.journal)
        self._environ_before = dict(os.environ)

    def __enter__(self) -> Self:
        os.environ.update(self.environ)
        self.app.__enter__()
        self._count = EmbeddingCount(str(self.app.http.base_url))
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._count.close()
        self.app.__exit__()
        os.environ.clear()
        os.environ.update(self._environ_before)

    def num_embedded(self) -> int:
        """See Rig; and see EmbeddingCount for what it misses."""
        return self._count.total()

    def replicas(self, role: str) -> Sequence[psutil.Process]:
        """Returns the living processes of a role."""
        return [process for process in self.app.processes(role) if process.status() != psutil.STATUS_ZOMBIE]

    def wait_complete(self) -> None:
        """Returns when every replica is there again."""

        def complete() -> bool:
            return all(len(self.replicas(role)) >= NUM_REPLICAS for role in ("Ingestor", "Embedder"))

        wait_until(complete, "Serve has replaced what died")
