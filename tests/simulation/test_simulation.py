"""Nothing lost, doubled or stale: the real workers under a thousand schedules of faults, on virtual time."""

import os
import subprocess
import sys

import pytest

from tests.config_trees import ROOT
from tests.simulation.run import simulate
from tests.simulation.services import UnguardedStore

NUM_SEEDS = 1_000
MAX_TOLD = 3


def run_seeds(seeds: range) -> None:
    """Fails with the commands that replay the first failing seeds."""
    failed = []
    for seed in seeds:
        outcome = simulate(seed)
        if outcome.violations:
            failed.append(f"python -m tests.simulation --seed {seed}   # {outcome.violations[0]}")
        if len(failed) == MAX_TOLD:
            break
    if failed:
        pytest.fail("the store does not equal the source:\n" + "\n".join(failed), pytrace=False)


def test_store_equals_source_after_any_faults_quick() -> None:
    run_seeds(range(NUM_SEEDS, NUM_SEEDS + 100))


def test_store_equals_source_after_any_faults() -> None:
    run_seeds(range(NUM_SEEDS))


def test_oracle_sees_what_a_store_without_a_guard_does() -> None:
    failures = [violation for seed in range(40) for violation in simulate(seed, UnguardedStore).violations]
    assert any("went down" in violation for violation in failures)
    assert any("expected, found version" in violation for violation in failures)


def test_seed_is_one_schedule_in_every_process() -> None:
    replay = [sys.executable, "-m", "tests.simulation", "--seed", "3"]
    environment = {**os.environ, "PYTHONHASHSEED": "2"}
    told = subprocess.run(replay, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    expected = [f"{at_s:9.3f}  {event}" for at_s, event in simulate(3).trace]
    assert told.stdout.splitlines()[:-1] == expected
