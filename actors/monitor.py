"""Gathers every replica's metrics and passes the word to drain. Nothing depends on it but people watching."""

import time

from pipeline.metrics import ReplicaReport

FORGET_AFTER_S = 30.0
"""A replica that has not reported for so long is gone; its counters go with it."""


class Monitor:
    """A single replica that holds the latest report of each other one, in memory only."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, str], tuple[float, ReplicaReport]] = {}
        self._draining = False

    async def report(self, report: ReplicaReport) -> bool:
        """Takes a replica's report; answers whether ingestors should drain."""
        self._reports[report.snapshot.process, report.snapshot.replica] = (time.monotonic(), report)
        return self._draining

    async def drain(self) -> None:
        """Tells all ingestors, with their next report, to finish what is in flight and leave the group."""
        self._draining = True

    async def reports(self) -> list[ReplicaReport]:
        """Returns the latest report of every replica that still reports."""
        oldest = time.monotonic() - FORGET_AFTER_S
        self._reports = {key: value for key, value in self._reports.items() if value[0] >= oldest}
        return [report for _, report in self._reports.values()]
