"""`python -m tests.simulation --seeds 100000` runs many seeds; `--seed 12345` replays one and tells its story."""

import argparse
import sys
import time

from rich.console import Console

from tests.simulation.run import Outcome, simulate

REPORT_S = 10.0

console = Console(soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seeds", type=int, help="how many seeds to run")
    which.add_argument("--seed", type=int, help="replay this one with its trace")
    parser.add_argument("--first", type=int, default=0, help="first of the seeds (default 0)")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(simulate(arguments.seed))
    return _run(range(arguments.first, arguments.first + arguments.seeds))


def _replay(outcome: Outcome) -> int:
    for at_s, event in outcome.trace:
        console.print(f"{at_s:9.3f}  {event}", highlight=False, markup=False)
    return _judge([outcome] if outcome.violations else [], 1)


def _run(seeds: range) -> int:
    failed: list[Outcome] = []
    reported_s = time.monotonic()
    for number, seed in enumerate(seeds):
        outcome = simulate(seed)
        if outcome.violations:
            failed.append(outcome)
            _tell(outcome)
        if time.monotonic() - reported_s >= REPORT_S:
            reported_s = time.monotonic()
            console.print(f"{number + 1:,} of {len(seeds):,} seeds, {len(failed)} failed", highlight=False)
    return _judge(failed, len(seeds))


def _tell(outcome: Outcome) -> None:
    console.print(f"seed {outcome.seed} failed; python -m tests.simulation --seed {outcome.seed}", highlight=False)
    for violation in outcome.violations[:5]:
        console.print(f"    {violation}", highlight=False, markup=False)


def _judge(failed: list[Outcome], num_seeds: int) -> int:
    if num_seeds == 1 and failed:
        _tell(failed[0])
    console.print(f"{num_seeds:,} simulated runs, {len(failed)} failed", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
