"""Faults of the encoder inside a worker's process. A JSON file, read at every call, says which; `{}` is none.

`{"max_tokens": n}`: a forward batch of more tokens runs out of memory. `{"nan_in_company": true}`: the
first row of each forward batch of several items is not finite. `{"nan_from": n}`: no item of n or more
tokens ever has a finite row. `{"rows": "missing" | "narrow" | "swapped"}`: what the engine hands back
is one row short, one value short, or in another order.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.forward import Forward
from pipeline.engine.layout import Pack
from pipeline.records.batches import Embeddings


class EncoderFaults:
    """What goes wrong now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def spoil(self, rows: Embeddings) -> Embeddings:
        """Returns rows as an encoder with a fault of its own would."""
        how = self._now().get("rows")
        if how == "missing":
            return [task_rows[:-1] for task_rows in rows]
        if how == "narrow":
            return [task_rows[:, :-1] for task_rows in rows]
        if how == "swapped":
            return [np.roll(task_rows, 1, axis=0) for task_rows in rows]
        return rows

    def install(self) -> None:
        """Puts the faults of forward batches into this process's transformers."""
        run = Forward.run

        def faulty(forward: Forward, pack: Pack, adapter: str | None) -> Tensor:
            now = self._now()
            if pack.num_tokens > now.get("max_tokens", pack.num_tokens):
                raise torch.OutOfMemoryError("CUDA out of memory")
            rows = run(forward, pack, adapter).clone()
            if now.get("nan_in_company") and len(pack.lengths) > 1:
                rows[0] = torch.nan
            if "nan_from" in now:
                rows[torch.from_numpy(pack.lengths + pack.reused >= now["nan_from"])] = torch.nan
            return rows

        Forward.run = faulty  # type: ignore[method-assign, assignment] # only in a process that a test has started

    def _now(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text(encoding="utf-8")))
