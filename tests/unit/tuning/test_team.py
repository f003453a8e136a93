"""Several workers that train together: their gradients are averaged, and the first one decides and writes."""

import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.tuning.team import ALONE, ProcessGroup


def in_a_group(rank: int, file: str) -> tuple[list[float], float, float, str]:
    """Runs in a process of its own."""
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    team = ProcessGroup()
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad = torch.tensor([1.0, 3.0]) * (rank + 1)  # the other has no gradient
    loss = team.average(weights, 0.5 + rank)
    assert weights[0].grad is not None
    assert weights[1].grad is not None
    found = [*weights[0].grad.tolist(), *weights[1].grad.tolist()]
    decided = team.first(lambda: 7.5 if rank == 0 else 1 / 0)
    team.check_equal(3, "of nothing")
    try:
        team.check_equal(rank, "of the checkpoint")
        message = ""
    except EnvironmentFault as error:
        message = str(error)
    distributed.destroy_process_group()
    return found, loss, decided, message


def test_processes_average_their_gradients_and_follow_the_first(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        found = pool.starmap(in_a_group, [(rank, str(tmp_path / "group")) for rank in range(2)])
    for gradients, loss, decided, message in found:
        assert gradients == [1.5, 4.5, 0.0]
        assert (loss, decided) == (1.0, 7.5)
        assert message == "the workers have different steps of the checkpoint"


def test_alone_nothing_is_changed() -> None:
    weight = nn.Parameter(torch.zeros(2))
    assert (ALONE.rank, ALONE.size) == (0, 1)
    assert ALONE.average([weight], 0.5) == 0.5
    assert weight.grad is None
    assert ALONE.first(lambda: 3.0) == 3.0
    ALONE.check_equal(1, "of nothing")


class Threads:
    """A team in one process."""

    def __init__(self, rank: int, size: int, shared: list[list[torch.Tensor]], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._shared, self._barrier = shared, barrier

    def average(self, weights: Sequence[nn.Parameter], loss: float) -> float:
        self._shared[self.rank] = [
            *(torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in weights),
            torch.tensor(loss),
        ]
        self._barrier.wait()
        means = [torch.stack(parts).mean(dim=0) for parts in zip(*self._shared, strict=True)]
        self._barrier.wait()
        for weight, mean in zip(weights, means, strict=False):
            weight.grad = mean
        return float(means[-1])

    def first(self, found: Callable[[], float]) -> float:
        if self.rank == 0:
            self._shared[0] = [torch.tensor(found(), dtype=torch.float64)]
        self._barrier.wait()
        value = float(self._shared[0][0])
        self._barrier.wait()
        return value

    def check_equal(self, value: int, what: str) -> None:
        pass


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
def test_each_worker_has_batches_of_its_own_and_all_have_the_same_weights(tmp_path: Path) -> None:
    from pipeline.tuning.encoder import LoraEncoder  # noqa: PLC0415 - the processes above need none of these
    from pipeline.tuning.loop import Length, LoraLoop  # noqa: PLC0415 - as above
    from tests.unit.tuning.test_lora import LESSON, SETTINGS, encoder_of, ignore, weights_of  # noqa: PLC0415 - as above

    class Recording:
        """The lesson, with notes."""

        has_plain = False

        def __init__(self) -> None:
            self.numbers: list[int] = []
            self.scores = 0

        def loss(self, encoder: LoraEncoder, number: int, random: np.random.Generator) -> torch.Tensor:
            self.numbers.append(number)
            return LESSON.loss(encoder, number, random)

        def score(self, encoder: LoraEncoder) -> float:
            self.scores += 1
            return LESSON.score(encoder)

    from tests.unit.tuning.scenes import tiny_config  # noqa: PLC0415 - as above

    base = tmp_path / "base"
    tiny_config(base)
    shared: list[list[torch.Tensor]] = [[], []]
    barrier = threading.Barrier(2, timeout=60)
    lessons = [Recording(), Recording()]
    encoders = [encoder_of(base) for _ in lessons]

    def work(rank: int) -> None:
        team = Threads(rank, 2, shared, barrier)
        file = tmp_path / f"c{rank}"
        LoraLoop(encoders[rank], lessons[rank], SETTINGS, file, run="r", team=team).run(Length(steps=3), ignore)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert [lesson.numbers for lesson in lessons] == [[0, 2, 4], [1, 3, 5]]
    assert lessons[0].scores > 0 == lessons[1].scores
    assert (tmp_path / "c0").is_file()
    assert not (tmp_path / "c1").exists()
    first, second = map(weights_of, encoders)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    alone = encoder_of(base)
    LoraLoop(alone, LESSON, SETTINGS, tmp_path / "alone", run="r").run(Length(steps=3), ignore)
    assert not all(torch.equal(value, first[name]) for name, value in weights_of(alone).items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
def test_a_job_can_be_handed_over_and_its_result_taken_from_the_checkpoint(tmp_path: Path) -> None:
    from pipeline.tuning.job import LoraJob, outcome_of, train_here  # noqa: PLC0415 - as above
    from pipeline.tuning.loop import Length  # noqa: PLC0415 - as above
    from tests.unit.tuning.scenes import prompts_of, tiny_config  # noqa: PLC0415 - as above
    from tests.unit.tuning.test_lora import LESSON, SETTINGS, WORDINGS, encoder_of, ignore, weights_of  # noqa: PLC0415 - as above

    base = tmp_path / "base"
    model = tiny_config(base)
    job = LoraJob(model, prompts_of(WORDINGS), LESSON, SETTINGS, tmp_path / "c", "r", Length(steps=16))
    with pytest.raises(KeyboardInterrupt):
        outcome_of(job, encoder_of(base), None)
    trained, taken = encoder_of(base), encoder_of(base)
    done = train_here(pickle.loads(pickle.dumps(job)), trained, ignore)  # noqa: S301 - our own
    found = outcome_of(job, taken, "interrupted")
    assert found.state == done.state
    assert found.stopped == "interrupted"
    assert all(torch.equal(value, weights_of(taken)[name]) for name, value in weights_of(trained).items())


def test_workers_without_ray_train_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.train_run import RayTrainer  # noqa: PLC0415 - as above

    monkeypatch.setitem(sys.modules, "ray.train.torch", None)
    with pytest.raises(ConfigError, match=r"pip install 'refract\[workers\]'"):
        RayTrainer(2, None)
