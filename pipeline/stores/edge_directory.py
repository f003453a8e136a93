"""The directory of an embedded store: who owns what of it, and the register of its collections and aliases."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import EnvironmentFault

REGISTER_FORMAT = 1
REGISTER_FILE = "collections.json"
LOCK_FILE = "owner.lock"
REGISTER_LOCK_FILE = "collections.lock"
SHARDS_FOLDER = "shards"
UNFINISHED = ".creating-"
"""Prefix of a shard folder under construction; one found at a start was never used."""


class EdgeDirectory:
    """Owns one directory until closed, or those of its collections that it asked for. Not thread-safe.

    The register is replaced as a whole (written beside, synced, renamed), so a crash leaves the old
    one or the new one. A shard folder is complete before the register names it.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Takes the directory; with `shared` beside others, each with collections of its own (see `own`).

        Raises EnvironmentFault when another process has it, or its register cannot be read.
        """
        self.path = path
        self.shared = shared
        self._shards = path / SHARDS_FOLDER
        self._owned: dict[str, int] = {}
        try:
            self._shards.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"store directory {str(path)!r} cannot be used: {error.strerror}") from error
        self._lock = _take_lock(path / LOCK_FILE, f"store directory {str(path)!r}", shared=shared)
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        if not shared:  # another process may be building one
            for unfinished in self._shards.glob(f"{UNFINISHED}*"):
                shutil.rmtree(unfinished)

    @property
    def collections(self) -> Mapping[str, Mapping[str, Any]]:
        """Collection name -> its metadata."""
        return self._collections

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias -> collection name."""
        return self._aliases

    @property
    def free_bytes(self) -> int:
        """Bytes this process may still write to the directory's file system."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def shard(self, collection: str) -> Path:
        """Returns where the collection's shard lies or will lie."""
        return self._shards / collection

    def own(self, collection: str) -> None:
        """Takes a collection of a shared directory, until closed. Raises EnvironmentFault when another has it."""
        if self.shared and collection not in self._owned:
            what = f"collection {collection!r} of store directory {str(self.path)!r}"
            self._owned[collection] = _take_lock(self._shards / f"{collection}.lock", what)
            self._read()  # what was registered meanwhile

    def begin(self, collection: str) -> Path:
        """Returns an empty folder to build the collection's shard in."""
        unfinished = self._shards / f"{UNFINISHED}{collection}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        return unfinished

    def finish(self, collection: str) -> None:
        """Moves the folder of `begin` to its place, durably."""
        (self._shards / f"{UNFINISHED}{collection}").rename(self.shard(collection))
        sync(self._shards)

    def register(self, collection: str, metadata: Mapping[str, Any]) -> None:
        """Adds a finished collection, durably."""
        with self._changing():
            self._save({**self._collections, collection: dict(metadata)}, self._aliases)

    def point(self, alias: str, collection: str) -> None:
        """Makes the alias lead to the collection, durably."""
        with self._changing():
            self._save(self._collections, {**self._aliases, alias: collection})

    def close(self) -> None:
        """Releases the directory and its collections. Safe to call twice."""
        while self._owned:
            os.close(self._owned.popitem()[1])
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _read(self) -> None:
        self._collections, self._aliases = _read_register(self.path / REGISTER_FILE)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Locks the register, and reads what others changed before it is changed here."""
        descriptor = os.open(self.path / REGISTER_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._read()
            yield
        finally:
            os.close(descriptor)

    def _save(self, collections: dict[str, dict[str, Any]], aliases: dict[str, str]) -> None:
        content = {"format": REGISTER_FORMAT, "collections": collections, "aliases": aliases}
        target = self.path / REGISTER_FILE
        beside = target.with_suffix(".tmp")
        with beside.open("wb") as file:
            file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
        sync(self.path)
        self._collections, self._aliases = collections, aliases


def _take_lock(path: Path, what: str, *, shared: bool = False) -> int:
    """Returns the descriptor that holds the lock; the kernel frees it when the process ends, however it ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentFault(f"{what} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise EnvironmentFault(
            f"{what} is in use by the process with pid {owner}; an embedded store has one owner at a time"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _read_register(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    if not path.exists():
        return {}, {}
    try:
        content = orjson.loads(path.read_bytes())
        found = content["format"]
        collections, aliases = dict(content["collections"]), dict(content["aliases"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EnvironmentFault(f"{str(path)!r} is not a register of collections: restore it from a backup") from error
    if found != REGISTER_FORMAT:
        raise EnvironmentFault(
            f"{str(path)!r} has format {found!r}, this version of refract reads {REGISTER_FORMAT}: use the version "
            f"that wrote it"
        )
    return collections, aliases


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable; the interpreter lock is free meanwhile."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
