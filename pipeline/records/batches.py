"""What records become on their way to the store: token batches, embeddings and batches of points, as flat arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class Priority(StrEnum):
    """Who is waiting for an embedding; the embedder serves them in this order."""

    QUERY = "query"
    LIVE = "live"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of some texts, and the prompts to put around each of them.

    Texts are tokenised once; every prompt is applied to every text. `segments[p, t]` names the run
    of ids (`ids[offsets[s]:offsets[s + 1]]`) that stands for text `t` inside prompt `p`. Prompts that
    join the text in the same way share a run; where a tokenizer cannot be proven to split at the
    join, a prompt has runs of its own that hold the whole prompt (`whole[p]` is then true). Prompts that are
    equal in content have equal segments: their texts go through the model once.
    Plain numpy arrays: Ray passes them between processes without copying.
    """

    prompts: tuple[str, ...]
    """Prompt names the engine knows: `<task>` for records, `<task>:query` for queries."""
    ids: Int32
    """(num_tokens,) flat."""
    offsets: Int64
    """(num_segments + 1,)"""
    segments: Int32
    """(num_prompts, num_texts)"""
    truncated: Int32
    """(num_prompts, num_texts) tokens of the text that did not fit."""
    whole: tuple[bool, ...] = ()

    @property
    def num_texts(self) -> int:
        """How many texts the batch holds."""
        return int(self.segments.shape[1])

    @property
    def num_tokens(self) -> int:
        """Token ids carried, instructions not counted."""
        return int(self.ids.shape[0])


Embeddings = list[Float32]
"""One (num_texts, dimension) float32 array per prompt of the batch, in order, rows L2-normalised.

A row of NaN marks an item the model could not embed, even alone in float32."""


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points of one set of records for all of a topic's tasks: the unit of writing.

    Ids are unique within a batch: the builder keeps the newest version of each. All arrays are
    aligned; the same id, version and payload go into every collection.
    """

    ids: npt.NDArray[np.uint8]
    """(n, 16): the UUIDs' bytes."""
    versions: Int64
    """(n,)"""
    deleted: Bool
    """(n,) true writes a tombstone: payload and version, no vector."""
    payloads: Sequence[Mapping[str, Any]]
    vectors: Mapping[str, Float32] = field(default_factory=dict)
    """Physical collection name -> (n, dimension) float32; rows of tombstones are ignored."""

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def take(self, rows: npt.NDArray[np.intp]) -> "PointBatch":
        """Returns the given rows as a batch of their own."""
        return PointBatch(
            self.ids[rows],
            self.versions[rows],
            self.deleted[rows],
            [self.payloads[row] for row in rows],
            {name: vectors[rows] for name, vectors in self.vectors.items()},
        )
