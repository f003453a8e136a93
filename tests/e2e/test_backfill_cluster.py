"""A backfill on three nodes, one of which dies in the middle."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.e2e.harness import PATIENCE_S, end, start_python, wait_until
from tests.e2e.test_backfill import _reached, num_done, verify, write_config, write_rows
from tests.faults.results import TooLateError

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.e2e, pytest.mark.timeout(900)]

NUM_ROWS = 6_000


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=options)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
    try:
        yield made
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]  # Ray's


def test_a_node_lost_in_the_middle_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    rows = [{"id": f"T-{n}", "title": f"ticket {n}", "body": f"text {n}", "version": n} for n in range(NUM_ROWS)]
    path = write_rows(tmp_path / "rows.parquet", rows)
    # Three embedders and three carriers, which Ray spreads: half a processor each, of one per node.
    model = {"model": "null:32", "replicas": 1, "max_replicas": 3, "num_cpus": 0.5}
    slow = {"overrides": {"delay_ms_per_batch": 150}}
    config = write_config(tmp_path, models={"null": {**model, **slow}}, ray={"ingestor_cpus": 0.4})
    log = tmp_path / "log"
    command = ["-m", "pipeline.cli", "backfill", str(config), str(path), "--address", cluster.address, "--json"]
    run = start_python(*command, log=log)
    try:
        # Seven processes start on three nodes, which are one machine.
        begun = partial(_reached, tmp_path, 4, run)
        wait_until(begun, "some fragments are noted", timeout_s=3 * PATIENCE_S)
        assert run.poll() is None, log.read_text()
        lost = cluster.worker_nodes.copy().pop()
        cluster.remove_node(lost, allow_graceful=False)
        if num_done(tmp_path) >= NUM_ROWS // 250:
            raise TooLateError("every fragment is done already: make it slower")
        run.wait(3 * PATIENCE_S)
    finally:
        end(run)
    output = log.read_text()
    assert run.returncode == 0, output
    report = json.loads(output[output.index("{\n") :])
    assert report["rows"] >= NUM_ROWS
    assert report["failed"] == {}
    compared = verify(config, path)
    assert compared["equal"], compared
    assert {task["keys"] for task in compared["tasks"].values()} == {NUM_ROWS}
