"""The script that users write today: Ray Data, sentence-transformers, and points one by one. Prints rows a second.

Arguments: Parquet file, model folder, folder for the store, and the settings as JSON. Its store is the
one Refract has on this machine, Qdrant Edge in an actor, without a guard: no network, nothing to win against.
"""

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge
import ray
import ray.data
from sentence_transformers import SentenceTransformer

TASKS = {
    "urgency": "How urgent is this support ticket",
    "technical_issue": "What is the technical issue in this support ticket",
}


class Embed:
    """Both tasks of a batch, each with its prompt in front."""

    def __init__(self, model: str, dtype: str, encode_batch: int) -> None:
        self._model = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": dtype})
        self._encode_batch = encode_batch

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        texts = batch["text"].tolist()
        for task, instruction in TASKS.items():
            batch[task] = self._model.encode(
                texts, prompt=f"{instruction}: ", batch_size=self._encode_batch, normalize_embeddings=True
            ).astype(np.float32)
        return batch


class Write:
    """One collection per task."""

    def __init__(self, folder: str) -> None:
        vectors = edge.EdgeVectorParams(size=384, distance=edge.Distance.Cosine)
        self._shards = {}
        for task in TASKS:
            path = Path(folder) / task
            path.mkdir(parents=True)
            config = edge.EdgeConfig(vectors=vectors, optimizers=edge.EdgeOptimizersConfig(indexing_threshold=10**12))
            self._shards[task] = edge.EdgeShard.create(str(path), config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, key)) for key in batch["id"]]
        for task, shard in self._shards.items():
            points = [
                edge.Point(point, row.tolist(), {"id": str(key), "version": int(version)})
                for point, row, key, version in zip(ids, batch[task], batch["id"], batch["version"], strict=True)
            ]
            shard.update(edge.UpdateOperation.upsert_points(points))
        return {"rows": np.array([len(ids)]), "at_s": np.array([time.monotonic()])}


def main() -> None:
    """Runs the script. The first batch, and with it every start, is left out."""
    rows, model, folder, given = sys.argv[1:]
    settings = json.loads(given)
    # Room for the readers beside the actors; what an actor is given decides torch's threads.
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 29)
    ray.data.DataContext.get_current().enable_progress_bars = False
    written = (
        ray.data.read_parquet(rows)
        .repartition(target_num_rows_per_block=settings["batch_size"])
        .map_batches(
            Embed,
            fn_constructor_kwargs={
                "model": model,
                "dtype": settings["dtype"],
                "encode_batch": settings["encode_batch"],
            },
            batch_size=settings["batch_size"],
            compute=ray.data.ActorPoolStrategy(size=settings["actors"]),
            num_cpus=settings["num_cpus"],
        )
        .map_batches(
            Write,
            fn_constructor_kwargs={"folder": folder},
            batch_size=settings["batch_size"],
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0,
        )
        .take_all()
    )
    ray.shutdown()
    written.sort(key=lambda row: row["at_s"])
    num_rows = sum(row["rows"] for row in written[1:])
    print(num_rows / (written[-1]["at_s"] - written[0]["at_s"]))


if __name__ == "__main__":
    main()
