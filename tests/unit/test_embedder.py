"""What embedders ask of their engines: those of a running app, and those of a backfill."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from actors.backfill_embedder import BackfillEmbedder
from actors.embedder import EmbedderReplica
from pipeline.config.load import ConfigTree
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.engine import Engine
from pipeline.engine.entry import load_engine, load_tokenizer
from pipeline.records.batches import Priority, TokenBatch
from tests.config_trees import tree

SOURCE = ConfigTree(tree(), "test.yaml")


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The bound of every forward batch that an embedder's null engine was asked for, oldest first."""
    seen: list[int | None] = []

    def load(model: ModelConfig, tasks: Mapping[str, TaskConfig], *, threads: int | None) -> Engine:
        engine = load_engine(model, tasks, threads=threads)
        begin: Callable[..., Any] = engine.begin

        def recorded(batches: Sequence[TokenBatch], max_tokens: int | None = None) -> Any:
            seen.append(max_tokens)
            return begin(batches, max_tokens)

        monkeypatch.setattr(engine, "begin", recorded)
        return engine

    monkeypatch.setattr("actors.embedder.load_engine", load)
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="embedder-1"))
    return seen


async def embed_by_priority(embedder: Any) -> None:
    config = SOURCE.load()
    batch = load_tokenizer(config.models["null"], config.tasks).encode(["no light"], [next(iter(config.tasks))])
    for priority in (Priority.BACKFILL, Priority.LIVE, Priority.QUERY):
        (rows,) = await embedder.embed(batch, priority)
        assert rows.shape[0] == 1


def test_a_backfill_beside_live_traffic_is_kept_brief(bounds: list[int | None]) -> None:
    embedder = EmbedderReplica(SOURCE, "null", SimpleNamespace())  # type: ignore[arg-type]  # a monitor that is away
    asyncio.run(embed_by_priority(embedder))
    embedder._reporter.close()
    embedder._scheduler.close()
    brief, *others = bounds
    assert brief is not None
    assert others == [None, None]


def test_a_backfill_with_embedders_of_its_own_fills_them(bounds: list[int | None]) -> None:
    embedder = BackfillEmbedder(SOURCE, "null")
    asyncio.run(embed_by_priority(embedder))
    embedder._scheduler.close()
    assert bounds == [None, None, None]
