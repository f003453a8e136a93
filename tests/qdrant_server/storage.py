"""Collections of the tests' server: one Edge shard each, and a small file for names, settings and aliases."""

import errno
import json
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qdrant_edge as edge

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Euclid": edge.Distance.Euclid,
    "Dot": edge.Distance.Dot,
    "Manhattan": edge.Distance.Manhattan,
}
INDEX_TYPES = {
    "FieldTypeKeyword": edge.PayloadSchemaType.Keyword,
    "FieldTypeInteger": edge.PayloadSchemaType.Integer,
    "FieldTypeFloat": edge.PayloadSchemaType.Float,
    "FieldTypeBool": edge.PayloadSchemaType.Bool,
    "FieldTypeDatetime": edge.PayloadSchemaType.Datetime,
    "FieldTypeUuid": edge.PayloadSchemaType.Uuid,
    "FieldTypeText": edge.PayloadSchemaType.Text,
}


class NotFoundError(Exception):
    """No such collection."""


class AlreadyExistsError(Exception):
    """The name is taken."""


@dataclass
class Collection:
    """One collection: its settings as created, and its shard."""

    settings: dict[str, Any]
    shard: edge.EdgeShard
    lock: threading.Lock = field(default_factory=threading.Lock)


class Storage:
    """All collections of one directory. Thread-safe."""

    def __init__(self, path: Path, min_free: int = 0) -> None:
        """`min_free`: bytes below which nothing is written any more, as a Qdrant server refuses on a full disk."""
        self._path = path
        self._min_free = min_free
        self._lock = threading.RLock()
        (path / "shards").mkdir(parents=True, exist_ok=True)
        state = path / "state.json"
        content = json.loads(state.read_text()) if state.exists() else {"collections": {}, "aliases": {}}
        self.aliases: dict[str, str] = content["aliases"]
        self._collections = {
            name: Collection(settings, edge.EdgeShard.load(str(self._shard(name)), _config(settings)))
            for name, settings in content["collections"].items()
        }

    def check_space(self) -> None:
        """Raises OSError when the file system is as good as full: Edge itself would be killed by writing on."""
        if self._min_free:
            found = os.statvfs(self._path)
            if found.f_bavail * found.f_frsize < self._min_free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._collections)

    def resolve(self, name: str) -> Collection:
        """Returns the collection of that name or alias."""
        with self._lock:
            found = self._collections.get(self.aliases.get(name, name))
        if found is None:
            raise NotFoundError(f"Not found: Collection `{name}` doesn't exist!")
        return found

    def create(self, name: str, settings: dict[str, Any]) -> None:
        with self._lock:
            if name in self._collections or name in self.aliases:
                raise AlreadyExistsError(f"Wrong input: Collection `{name}` already exists!")
            path = self._shard(name)
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            shard = edge.EdgeShard.create(str(path), _config(settings))
            shard.flush()
            self._collections[name] = Collection(settings, shard)
            self._save()

    def delete(self, name: str) -> bool:
        """Removes a collection and its aliases, as the server does."""
        with self._lock:
            found = self._collections.pop(name, None)
            if found is None:
                return False
            self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
            self._save()
            with found.lock:
                found.shard.close()
            shutil.rmtree(self._shard(name))
            return True

    def update(self, name: str, metadata: dict[str, Any]) -> None:
        """Merges into the metadata; None removes a key."""
        with self._lock:
            settings = self.resolve(name).settings
            merged = {**settings["metadata"], **metadata}
            settings["metadata"] = {key: value for key, value in merged.items() if value is not None}
            self._save()

    def set_links(self, name: str, links: int) -> None:
        """Notes the links per vector of the graph, which this server never builds."""
        with self._lock:
            self.resolve(name).settings["hnsw_m"] = links
            self._save()

    def set_strict(self, name: str, changes: dict[str, Any]) -> None:
        """Merges into the strict mode's settings."""
        with self._lock:
            settings = self.resolve(name).settings
            settings["strict"] = {**settings.get("strict", {}), **changes}
            self._save()

    def index(self, name: str, path: str, kind: str, params: str = "") -> None:
        """Builds an index; `params` are the request's own, as hex, to be shown as they came."""
        with self._lock:
            found = self.resolve(name)
            with found.lock:
                found.shard.update(edge.UpdateOperation.create_field_index(path, INDEX_TYPES[kind]))
            found.settings["indexes"][path] = kind
            found.settings.setdefault("index_params", {})[path] = params
            self._save()

    def drop_index(self, name: str, path: str) -> None:
        with self._lock:
            found = self.resolve(name)
            with found.lock:
                found.shard.update(edge.UpdateOperation.delete_field_index(path))
            found.settings["indexes"].pop(path, None)
            self._save()

    def create_alias(self, alias: str, name: str) -> None:
        with self._lock:
            if name not in self._collections:
                raise NotFoundError(f"Not found: Collection `{name}` doesn't exist!")
            if alias in self._collections:
                raise AlreadyExistsError(f"Wrong input: Collection `{alias}` already exists!")
            self.aliases[alias] = name
            self._save()

    def delete_alias(self, alias: str) -> None:
        with self._lock:
            self.aliases.pop(alias, None)
            self._save()

    def close(self) -> None:
        with self._lock:
            for collection in self._collections.values():
                with collection.lock:
                    collection.shard.close()

    def _shard(self, name: str) -> Path:
        return self._path / "shards" / name

    def _save(self) -> None:
        content = {
            "collections": {name: found.settings for name, found in self._collections.items()},
            "aliases": self.aliases,
        }
        beside = self._path / "state.tmp"
        with beside.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path / "state.json")


def _config(settings: dict[str, Any]) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=settings["size"], distance=DISTANCES[settings["distance"]]),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=10**12),
    )
