"""Notices records of one key and one version that differ: only the first of them is ever stored."""

from collections.abc import Iterable
from threading import Lock

import orjson

from pipeline.records.record import Record

REMEMBERED_KEYS = 20_000
"""Keys of a topic whose last version is remembered beyond their batch, at about 200 bytes each."""


class Conflicts:
    """What a topic's last records held. Thread-safe."""

    def __init__(self) -> None:
        self._last: dict[bytes, tuple[int, int]] = {}
        """Id -> the newest version seen and a hash of its content, the longest unseen first."""
        self._lock = Lock()

    def count(self, records: Iterable[tuple[bytes, Record]]) -> int:
        """Returns how many of the records, by id, differ from an earlier one of equal version; a replay does not."""
        num_conflicts = 0
        with self._lock:
            for key, record in records:
                content = _content(record)
                version, held = self._last.pop(key, (-1, 0))
                num_conflicts += version == record.version and held != content
                self._last[key] = (record.version, content) if record.version > version else (version, held)
            while len(self._last) > REMEMBERED_KEYS:
                del self._last[next(iter(self._last))]
        return num_conflicts


def _content(record: Record) -> int:
    stored = {name: value for name, value in record.payload.items() if name != "_source"}
    return hash((record.text, orjson.dumps(stored, option=orjson.OPT_SORT_KEYS)))
