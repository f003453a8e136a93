"""Where a model's files come from, and what each failure of the hub is."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import errors

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import check_tasks, identify, load_engine, load_tokenizer
from pipeline.errors import ConfigError, TransientError
from tests.unit.engine.tiny_models import build

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = ModelConfig(model="intfloat/e5-small-v2", revision=COMMIT, device="cpu", dtype="float32")
TASKS = {"t": TaskConfig(model="m")}


class Hub:
    """A hub and its cache: `snapshot_download` as the engine calls it."""

    def __init__(self, root: Path) -> None:
        self.remote = build("bert-e5", root / "remote")
        self.cache = root / "snapshots" / COMMIT
        self.error: Exception | None = None
        self.downloads: list[list[str]] = []

    def snapshot_download(self, repo: str, *, local_files_only: bool, allow_patterns: list[str], **_: Any) -> str:
        assert repo == MODEL.model
        if local_files_only:
            if not self.cache.exists():
                raise errors.LocalEntryNotFoundError("nothing here")
            return str(self.cache)
        if self.error is not None:
            raise self.error
        self.downloads.append(allow_patterns)
        weights = any("safetensors" in pattern for pattern in allow_patterns)
        ignored = None if weights else shutil.ignore_patterns("*.safetensors")
        shutil.copytree(self.remote, self.cache, dirs_exist_ok=True, ignore=ignored)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", found.snapshot_download)
    return found


def test_a_hub_model_is_known_by_its_commit_and_checked_without_its_weights(hub: Hub) -> None:
    check_tasks("m", MODEL, TASKS)
    assert identify(MODEL).parts["weights"] == f"{MODEL.model}@{COMMIT}"
    assert not list(hub.cache.glob("*.safetensors"))
    assert len(hub.downloads) == 1, "a pinned snapshot is not asked for twice"


def test_weights_are_fetched_when_the_engine_loads(hub: Hub) -> None:
    identify(MODEL)
    engine = load_engine(MODEL, TASKS)
    (rows,) = engine.embed(load_tokenizer(MODEL, TASKS).encode(["server down"], ["t"]))
    assert rows.shape == (1, 32)
    assert engine.describe()["revision"] == COMMIT
    load_engine(MODEL, TASKS)
    assert len(hub.downloads) == 2


def test_a_cached_model_works_without_the_hub(hub: Hub) -> None:
    load_engine(MODEL, TASKS)
    hub.error = errors.OfflineModeIsEnabled("no network")
    unpinned = MODEL.model_copy(update={"revision": None})
    assert identify(unpinned) == identify(MODEL)
    assert load_engine(unpinned, TASKS).dimension == 32


def refused(error: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    request = errors_request()
    return error("refused", response=httpx.Response(status, request=request))  # type: ignore[arg-type] # the hub's own httpx


def errors_request() -> httpx.Request:
    return httpx.Request("GET", "https://hub.example/model")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.GatedRepoError, 403, "accept its licence on the hub and set HF_TOKEN"),
        (errors.RevisionNotFoundError, 404, f"no revision '{COMMIT}'"),
        (errors.RepositoryNotFoundError, 404, "not on the hub, or private"),
    ],
)
def test_what_the_hub_refuses_is_a_fault_of_the_configuration(
    hub: Hub, error: type[errors.HfHubHTTPError], status: int, message: str
) -> None:
    hub.error = refused(error, status)
    with pytest.raises(ConfigError, match=message):
        identify(MODEL)


@pytest.mark.parametrize(
    "error",
    [errors.OfflineModeIsEnabled("offline"), errors.LocalEntryNotFoundError("away"), ConnectionResetError("reset")],
)
def test_a_hub_that_does_not_answer_is_transient(hub: Hub, error: Exception) -> None:
    hub.error = error
    with pytest.raises(TransientError, match="not in the local cache, and the hub does not answer"):
        identify(MODEL)


def test_a_hub_model_never_loads_from_pickles(hub: Hub) -> None:
    (hub.remote / "model.safetensors").rename(hub.remote / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="Only safetensors are loaded"):
        load_engine(MODEL, TASKS)
