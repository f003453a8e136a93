"""An encoder that runs out of memory, gives no finite rows, or answers nonsense: rows 35 to 37."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.errors import Reason
from tests.e2e.harness import wait_until
from tests.e2e.oracle import VERSION_0, all_points
from tests.faults.harness import Rig, WorkerProcess
from tests.faults.results import FaultRun, fault_run
from tests.unit.engine.tiny_models import FAMILIES, build

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

FAMILY = "qwen3"
COUNT = 300


class Encoder:
    """A rig whose workers run a tiny transformer, and the faults of it."""

    def __init__(self, make_rig: Callable[..., Rig], folder: Path, **changes: Any) -> None:
        model = {
            "model": str(build(FAMILY, folder / "tiny")),
            "device": "cpu",
            "dtype": "float32",
            "overrides": dict(FAMILIES[FAMILY].overrides),
            "num_cpus": 0.5,
        }
        self.rig = make_rig(models__hash=model, **changes)
        self._faults = folder / "encoder.json"
        self.set()

    def set(self, **faults: Any) -> None:
        beside = self._faults.with_suffix(".tmp")
        beside.write_text(json.dumps(faults), encoding="utf-8")
        beside.replace(self._faults)

    def worker(self, instance: int = 0) -> WorkerProcess:
        return self.rig.worker(instance, "--encoder", str(self._faults))

    def wrong_vectors(self) -> list[str]:
        """Computes everything that is stored once more, here, without faults."""
        wrong = []
        config, journal = self.rig.config, self.rig.journal
        model = config.models["hash"]
        for name in config.source.topics[journal.tickets].tasks:
            tasks = {name: config.tasks[name]}
            live = {point: state for point, state in journal.states[name].items() if state.text is not None}
            tokens = load_tokenizer(model, tasks).encode([state.text or "" for state in live.values()], [name])
            rows = load_engine(model, tasks).embed(tokens)[0]
            stored = all_points(self.rig.store, journal.tasks[name].collection)
            wrong += [
                f"{name}: {state.payload['_key']}"
                for (point, state), row in zip(live.items(), rows, strict=True)
                if (vector := stored[point].vector) is None or float(vector @ row) < 1 - 1e-4
            ]
        return wrong

    def check(self, run: FaultRun) -> None:
        self.rig.check(run)
        assert self.wrong_vectors() == []


@pytest.fixture
def encoder(make_rig: Callable[..., Rig], tmp_path: Path) -> Encoder:
    return Encoder(make_rig, tmp_path)


def test_memory_holds_a_few_texts_only(encoder: Encoder) -> None:
    """One prompt has 30 to 48 tokens; of 64 texts and two tasks hardly more than two go together."""
    encoder.set(max_tokens=100)
    with fault_run(35) as run:
        encoder.rig.send(COUNT)
        run.healed()
        with encoder.worker() as member:
            encoder.rig.wait_finished()
            run.recovered()
            encoder.check(run)
            assert "did not fit in memory" in member.output()
            assert member.state()["letters"] == 0


def test_row_is_not_finite_in_company_and_is_alone(encoder: Encoder) -> None:
    encoder.set(nan_in_company=True)
    with fault_run(36) as run:
        encoder.rig.send(COUNT)
        run.healed()
        with encoder.worker() as member:
            encoder.rig.wait_finished()
            run.recovered()
            encoder.check(run)
            assert '"finite_now": true' in member.output()
            assert member.state()["letters"] == 0


def test_row_is_never_finite(encoder: Encoder) -> None:
    """Ten texts as long as the model takes, among others: letters, and nothing of them in any collection."""
    rig = encoder.rig
    with fault_run(36, seed=1) as run, encoder.worker() as member:
        member.wait_ready()  # what a model computes while it is loaded must be finite
        encoder.set(nan_from=45)
        for number in range(10):
            rig.send(20)
            poison = {"id": f"long-{number}", "title": "t", "body": "invoice " * 100, "updated_at": VERSION_0}
            value = json.dumps({**poison, "status": "open"}).encode()
            rig.journal.poison(Reason.INVALID_EMBEDDING, value, key=b"long")
        rig.journal.settle()
        rig.journal.num_embeddings += 2 * 10  # letters that were embedded first, once for each task
        run.healed()
        rig.wait_finished()
        run.recovered()
        encoder.check(run)
        assert member.state()["letters"] == 10


@pytest.mark.parametrize(("seed", "rows"), list(enumerate(["missing", "narrow"])))
def test_rows_of_another_shape_stop_the_worker(rig: Rig, tmp_path: Path, seed: int, rows: str) -> None:
    faults = tmp_path / "encoder.json"
    faults.write_text("{}")
    with fault_run(37, seed) as run, rig.worker(0, "--encoder", str(faults)) as member:
        rig.send(1_500)
        rig.wait_midstream()
        faults.write_text(json.dumps({"rows": rows}))
        assert member.wait() == 1
        assert "expected (" in member.output().splitlines()[-1]
        run.healed()
        with rig.worker(1):
            rig.wait_progress(run)
            rig.check(run)


def refract(rig: Rig, verb: str) -> int:
    return invoke([verb, str(rig.path), "--sample", "all"])


def test_rows_in_another_order_are_found_by_verify_and_mended(rig: Rig, tmp_path: Path) -> None:
    """Nothing at hand tells one record's vector from another's: only computing it again does."""
    faults = tmp_path / "encoder.json"
    faults.write_text(json.dumps({"rows": "swapped"}))
    with fault_run(37, seed=2) as run:
        rig.send(200)
        with rig.worker(0, "--encoder", str(faults)):
            rig.wait_finished()
        assert rig.journal.compare(rig.store), "the oracle sees it, too"
        run.healed()
        assert refract(rig, "verify") == ExitCode.FAILED
        assert refract(rig, "repair") == ExitCode.OK
        run.recovered()
        wait_until(lambda: refract(rig, "verify") == ExitCode.OK, "verify finds nothing more")
        rig.compare(run)
