"""The null engine: no model, but a unit vector from a hash of prompt and text. For tests and for measuring the rest.

The same on every machine and exact: a vector is a row of signs, each divided by sqrt(dimension).
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import failpoints
from pipeline.binding import ModelIdentity
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.engine import Engine, Job, Result
from pipeline.errors import ConfigError, nearest
from pipeline.records.batches import Float32, TokenBatch

_NAME = re.compile(r"^null:([1-9][0-9]{0,4})$")
_IDS_PER_TEXT = 4
_MAX_BATCH_TOKENS = 16_384


def is_null(model: ModelConfig) -> bool:
    """Whether the configuration names the null engine."""
    return model.model.startswith("null:")


def null_dimension(model: ModelConfig) -> int:
    """Returns the dimension of `null:<dimension>`. Raises ConfigError when it is not one, or an override is unknown."""
    match = _NAME.match(model.model)
    if match is None or not 2 <= int(match[1]) <= 65_536:  # noqa: PLR2004 - the range of TaskConfig.dimension
        raise ConfigError(f"model {model.model!r}: expected null:<dimension> with a dimension of 2 to 65536")
    for key in model.overrides:
        if key != "delay_ms_per_batch":
            raise ConfigError(
                f"{model.model}: overrides has no field {key!r}.{nearest(key, ['delay_ms_per_batch'])} "
                "Valid: delay_ms_per_batch"
            )
    return int(match[1])


def null_identity(model: ModelConfig) -> ModelIdentity:
    """Returns the identity of the null engine."""
    return ModelIdentity(null_dimension(model), {"engine": "null"})


def null_prompts(tasks: Mapping[str, TaskConfig]) -> dict[str, bytes]:
    """Returns prompt name -> what is hashed with every text. Raises ConfigError for a task with a head."""
    prompts = {}
    for name, task in tasks.items():
        if task.head is not None:
            raise ConfigError(f"tasks.{name}.head: the null engine has no model that a head could stand behind")
        prompts[name] = _salt(name, task.instruction)
        if task.mode == "retrieval":
            prompts[f"{name}:query"] = _salt(f"{name}:query", task.query_instruction or task.instruction)
    return prompts


def _salt(name: str, instruction: str | None) -> bytes:
    return hashlib.blake2b(f"{len(name)}:{name}{instruction or ''}".encode(), digest_size=16).digest()


def _known(name: str, prompts: Mapping[str, Any]) -> None:
    if name not in prompts:
        raise ConfigError(f"no prompt {name!r} here.{nearest(name, prompts)} Known: {', '.join(prompts)}")


class NullTokenizer:
    """Four ids from a hash of the text; cheap to make and to carry. Thread-safe."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        self._prompts = null_prompts(tasks)

    def encode(self, texts: Sequence[str], prompts: Sequence[str]) -> TokenBatch:
        """Returns one run of four ids per text, shared by all prompts."""
        for name in prompts:
            _known(name, self._prompts)
        digests = b"".join(hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest() for text in texts)
        shape = (len(prompts), len(texts))
        return TokenBatch(
            tuple(prompts),
            np.frombuffer(digests, "<i4").astype(np.int32, copy=False),
            np.arange(0, _IDS_PER_TEXT * len(texts) + 1, _IDS_PER_TEXT, dtype=np.int64),
            np.broadcast_to(np.arange(len(texts), dtype=np.int32), shape).copy(),
            np.zeros(shape, np.int32),
            (False,) * len(prompts),
        )

    def show(self, prompt: str, text: str) -> tuple[str, list[int]]:
        """Returns the text itself, as the null model has no prompts, and its ids."""
        return text, self.encode([text], [prompt]).ids.tolist()


class NullEngine(Engine):
    """Signs from shake_128 over prompt and ids, divided by sqrt(dimension)."""

    def __init__(self, model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> None:
        self.dimension = null_dimension(model)
        self.max_batch_tokens = model.max_batch_tokens or _MAX_BATCH_TOKENS
        self._prompts = null_prompts(tasks)
        self._dimensions = {
            prompt: tasks[prompt.partition(":")[0]].dimension or self.dimension for prompt in self._prompts
        }
        delay_ms = model.overrides.get("delay_ms_per_batch", 0)
        if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float) or delay_ms < 0:
            raise ConfigError(f"{model.model}: overrides.delay_ms_per_batch is {delay_ms!r}; expected a number >= 0")
        self._delay_s = delay_ms / 1000

    def begin(self, batches: Sequence[TokenBatch], max_tokens: int | None = None) -> "NullJob":
        """Returns the job; its steps are runs of texts of one prompt."""
        for batch in batches:
            for name in batch.prompts:
                _known(name, self._prompts)
        return NullJob(self, batches, min(max_tokens or self.max_batch_tokens, self.max_batch_tokens))

    def describe(self) -> dict[str, Any]:
        """Says plainly what this is."""
        return {
            "model": f"null:{self.dimension}",
            "dimension": self.dimension,
            "max_batch_tokens": self.max_batch_tokens,
            "device": "cpu",
            "dtype": "float32",
            "warnings": ["the null engine computes no embeddings; it is for tests and for measuring what is around it"],
        }

    def rows(self, batch: TokenBatch, prompt: int, start: int, end: int) -> Float32:
        """Returns the vectors of texts start to end under one prompt of the batch."""
        failpoints.reach("forward")
        if self._delay_s:
            time.sleep(self._delay_s)
        name = batch.prompts[prompt]
        dimension = self._dimensions[name]
        salted = hashlib.shake_128(self._prompts[name])
        num_bytes = (dimension + 7) // 8
        ids = np.ascontiguousarray(batch.ids, "<i4").tobytes()
        first = batch.offsets[batch.segments[prompt, start:end]] * 4
        last = batch.offsets[batch.segments[prompt, start:end] + 1] * 4
        digests = bytearray()
        for begin, stop in zip(first.tolist(), last.tolist(), strict=True):
            state = salted.copy()
            state.update(ids[begin:stop])
            digests += state.digest(num_bytes)
        bits = np.unpackbits(np.frombuffer(digests, np.uint8).reshape(end - start, num_bytes), axis=1, count=dimension)
        scale = np.float32(1 / np.sqrt(dimension))
        return np.where(bits, scale, -scale)


class NullJob(Job):
    """Forward batches of up to max_tokens ids."""

    def __init__(self, engine: NullEngine, batches: Sequence[TokenBatch], max_tokens: int) -> None:
        self._engine = engine
        self._batches = batches
        size = max(max_tokens // _IDS_PER_TEXT, 1)
        self._steps = [
            (number, prompt, start, min(start + size, batch.num_texts))
            for number, batch in enumerate(batches)
            for prompt in range(len(batch.prompts))
            for start in range(0, batch.num_texts, size)
        ][::-1]
        self._parts: list[list[list[Float32]]] = [[[] for _ in batch.prompts] for batch in batches]

    @property
    def done(self) -> bool:
        """Whether every text has its rows."""
        return not self._steps

    @property
    def num_forward_items(self) -> int:
        """Every text under every prompt: the null engine tells prompts apart by name."""
        return sum(len(batch.prompts) * batch.num_texts for batch in self._batches)

    def step(self) -> int:
        """Computes the next run of texts."""
        if not self._steps:
            return 0
        number, prompt, start, end = self._steps.pop()
        self._parts[number][prompt].append(self._engine.rows(self._batches[number], prompt, start, end))
        return _IDS_PER_TEXT * (end - start)

    def results(self) -> list[Result]:
        """Returns the rows of every batch."""
        while not self.done:
            self.step()
        empty = np.empty((0, self._engine.dimension), np.float32)
        return [[np.concatenate(rows) if rows else empty for rows in parts] for parts in self._parts]
