"""Parquet files of vectors, one per fragment, that anything which reads Parquet can open."""

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backfill.inputs import Fragment
from pipeline.binding import Task
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.interfaces import Progress, Written
from pipeline.records.batches import Float32, PointBatch

GROUP_ROWS = 8_192
"""Rows of a row group: some megabytes per task."""


LEFT_BEHIND_S = 86_400.0
"""An unfinished file that was not touched for a day belongs to a process that is gone."""


def check_output(folder: Path, tasks: Sequence[Task], step: Progress) -> None:
    """Raises ConfigError where a file of the folder holds a task's vectors under another fingerprint.

    A reader of the folder as one table would have both in one column, and could not read a file that is not Parquet.
    Unfinished files that processes left behind long ago are removed.
    """
    for path in folder.glob("*.tmp"):
        if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
            path.unlink(missing_ok=True)
    paths = sorted(folder.glob("*.parquet"))
    for number, path in enumerate(paths):
        step("looking at what the folder holds", number, len(paths))
        try:
            schema = pq.read_schema(path)
        except (OSError, ValueError):  # pyarrow's ArrowInvalid is a ValueError
            raise ConfigError(
                f"--output {folder}: {path.name} cannot be read as Parquet; name another folder"
            ) from None
        for task in tasks:
            column = _column(task)
            if column not in schema.names:
                continue
            found = (schema.field(column).metadata or {}).get(b"fingerprint", b"none").decode()
            if found != task.fingerprint:
                raise ConfigError(
                    f"--output {folder}: {path.name} holds vectors of task {task.name!r} under another fingerprint "
                    f"({found[:10]}, now {task.fingerprint[:10]}), and readers would mix them; name another folder"
                )


class FragmentFile:
    """Implements `pipeline.interfaces.PointWriter`: the points of one fragment as a Parquet file.

    Columns: `id` (the point's UUID), `key`, `version`, `deleted`, `payload` (a JSON object), and per task
    `vector_TASK`: a fixed-size list of float32, null for a delete. The file appears whole, with `flush`.
    Versions decide nothing here: of a key that two fragments hold, both rows are written, and the reader takes the
    newer. Thread-safe.
    """

    def __init__(self, folder: Path, fragment: Fragment, tasks: Sequence[Task]) -> None:
        """Prepares the file; nothing is written yet."""
        vectors = [
            pa.field(_column(task), pa.list_(pa.float32(), task.dimension), metadata=_about(task)) for task in tasks
        ]
        fields = [("id", pa.string()), ("key", pa.string()), ("version", pa.int64()), ("deleted", pa.bool_())]
        self._schema = pa.schema([*fields, ("payload", pa.string()), *vectors])
        self._columns = {task.collection: _column(task) for task in tasks}
        self._path = folder / f"{_name(fragment, tasks)}.parquet"
        # Of its own: a carrier that was given up for dead may write the same fragment still.
        self._beside = folder / f"{self._path.stem}.{uuid4().hex[:8]}.tmp"
        self._forsaken = weakref.finalize(self, self._beside.unlink, missing_ok=True)
        self._lock = threading.Lock()
        self._held: list[Any] = []
        self._writer: Any = None

    def upsert(self, batch: PointBatch) -> Written:
        """Adds the points. Raises EnvironmentFault when the disk does not take them; this file is lost then."""
        rows = self._rows(batch)
        with self._lock, self._writing():
            self._held.append(rows)
            if sum(len(held) for held in self._held) >= GROUP_ROWS:
                self._write()
        return Written({})

    def flush(self) -> None:
        """Writes what is held and puts the file, synced, in its place. Raises EnvironmentFault, see `upsert`."""
        with self._lock, self._writing():
            self._write()
            self._writer.close()
            self._writer = None
            with self._beside.open("rb") as file:
                os.fsync(file.fileno())
            self._beside.replace(self._path)
        self._forsaken.detach()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Not an outage after which a call is repeated: a half-written row group cannot be taken back.
            raise EnvironmentFault(
                f"output {self._path.parent}: cannot be written ({error.strerror}). Finished files are whole; run "
                "again once there is room, and it goes on with the others"
            ) from None

    def _write(self) -> None:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._beside, self._schema, compression="zstd")
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
            self._held = []

    def _rows(self, batch: PointBatch) -> Any:
        raw = batch.ids.tobytes()
        ids = [str(UUID(bytes=raw[at : at + 16])) for at in range(0, len(raw), 16)]
        payloads = [{name: value for name, value in payload.items() if name != "_key"} for payload in batch.payloads]
        columns = [
            pa.array(ids),
            pa.array([payload["_key"].partition(":")[2] for payload in batch.payloads]),
            pa.array(batch.versions),
            pa.array(batch.deleted),
            pa.array([orjson.dumps(payload).decode() for payload in payloads]),
        ]
        vectors = {self._columns[name]: rows for name, rows in batch.vectors.items()}
        columns += [
            _lists(vectors[field.name], batch.deleted, field.type) for field in self._schema if field.name in vectors
        ]
        return pa.record_batch(columns, schema=self._schema)


def _name(fragment: Fragment, tasks: Sequence[Task]) -> str:
    """The same for the same fragment and tasks, so that a repetition replaces the file."""
    identity = "\0".join([fragment.name, *sorted(task.fingerprint for task in tasks)])
    stem = PurePosixPath(fragment.uri).stem
    return f"{stem}-{fragment.part}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def _column(task: Task) -> str:
    return f"vector_{task.name}"


def _about(task: Task) -> Mapping[str, str]:
    return {"fingerprint": task.fingerprint, "instruction": task.config.instruction or "", "model": task.config.model}


def _lists(rows: Float32, deleted: Any, kind: Any) -> Any:
    values = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
    mask = pa.array(deleted) if deleted.any() else None
    return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=mask)
