"""What everybody else calls: a model's identity, its tokenizer, its engine, and whether its tasks can work.

`identify`, `load_tokenizer` and `check_tasks` never import torch: they run in small processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType

from pipeline.binding import HeadIdentity, ModelIdentity
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.catalogue import FREE_STYLES
from pipeline.engine.engine import Engine
from pipeline.engine.files import ModelFiles, sha256_of
from pipeline.engine.head_files import find_head, read_head
from pipeline.engine.null import NullEngine, NullTokenizer, is_null, null_dimension, null_identity, null_prompts
from pipeline.engine.spec import ModelSpec, resolve
from pipeline.engine.st_files import Dense
from pipeline.errors import ConfigError, TransientError
from pipeline.interfaces import Tokenizer

_NO_TASKS: Mapping[str, TaskConfig] = MappingProxyType({})


def identify(model: ModelConfig, tasks: Mapping[str, TaskConfig] = _NO_TASKS) -> ModelIdentity:
    """Returns what decides this model's vectors, from its files alone: no weights are loaded.

    A hub model is known by its commit, a folder by the sha256 of its weights. Precision is left out, except int8:
    bfloat16 and float32 vectors of one model may share a collection.

    Args:
        model: The model.
        tasks: Its tasks by name, for their heads. `pipeline.binding.bind_task` refuses a headed task without.

    Raises:
        ConfigError: the model cannot work as configured.
        TransientError: the hub does not answer and nothing is cached.
    """
    if is_null(model):
        return null_identity(model)
    spec = resolve(model)
    parts = {
        "weights": _weights(spec.files),
        "tokenizer": _tokenizer(spec.files),
        "templates": repr(_templates(spec)),
        "pooling": "+".join(spec.pooling),
        "exclude_instruction": str(spec.exclude_instruction),
        "after_pooling": repr(spec.after_pooling),
        "dense": ",".join(_dense_hashes(spec)),
        "text": f"strip={spec.strip_text} lowercase={spec.lowercase}",
        "append_eos": str(spec.append_eos),
        "bidirectional": str(spec.bidirectional),
        "layer_norm_before_truncation": str(spec.layer_norm_before_truncation),
        "max_length": str(spec.max_length),
    }
    if model.dtype == "int8":  # degrees away from the others: its vectors need their own space
        parts["dtype"] = model.dtype
    if spec.adapter is not None:
        parts["adapter"] = spec.adapter.commit or sha256_of(sorted(spec.adapter.folder.rglob("adapter_*")))
    return ModelIdentity(spec.dimension, parts, _heads(tasks))


@dataclass(frozen=True, slots=True)
class InstructionForm:
    """How a model takes instructions."""

    is_free: bool
    """In the user's own words; else it knows labels, fixed prefixes, or none at all."""
    has_plain_form: bool
    """Whether a symmetric task may go without one."""


def instruction_form(model: ModelConfig) -> InstructionForm:
    """Returns how a model takes instructions; no weights are loaded. Raises like `identify`."""
    if is_null(model):
        return InstructionForm(is_free=True, has_plain_form=True)
    spec = resolve(model)
    return InstructionForm(spec.instruction_style in FREE_STYLES, spec.query_template_plain is not None)


def load_tokenizer(model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> Tokenizer:
    """Returns the tokenizer with the prompts of the model's tasks. Raises ConfigError, TransientError."""
    if is_null(model):
        return NullTokenizer(tasks)
    from pipeline.engine.tokenizer import PromptTokenizer  # noqa: PLC0415 - the null tokenizer needs no vocabulary

    return PromptTokenizer(resolve(model), tasks)


def load_engine(model: ModelConfig, tasks: Mapping[str, TaskConfig], *, threads: int | None = None) -> Engine:
    """Loads the weights, tests them, and returns the engine.

    Args:
        model: The model.
        tasks: Its tasks by name.
        threads: Threads of torch in this process; None leaves torch's choice.

    Raises:
        ConfigError: the model cannot work as configured.
        TransientError: the hub does not answer and nothing is cached.
        EnvironmentFault: no such device, or the self-test failed.
    """
    if is_null(model):
        return NullEngine(model, tasks)
    from pipeline.engine.build import build_engine  # noqa: PLC0415 - torch

    return build_engine(model, tasks, threads=threads)


def check_tasks(model_name: str, model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> None:
    """Checks that the model can do what its tasks ask, without loading it.

    Raises:
        ConfigError: names the key, what was given and what is possible.
    """
    try:
        if is_null(model):
            _check_null(model, tasks)
            return
        from pipeline.engine.tokenizer import PromptTokenizer  # noqa: PLC0415 - as in load_tokenizer

        spec = resolve(model)
        PromptTokenizer(spec, tasks)
        _check_precision(model, spec)
        _check_weights(spec)
        for name, task in tasks.items():
            if head := find_head(name, task):
                read_head(head)
    except ConfigError as error:
        raise ConfigError(f"models.{model_name}: {error}") from None
    except TransientError as error:
        raise ConfigError(f"models.{model_name}: {error}. Connect once to download it, or name a folder") from error


def _check_null(model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> None:
    dimension = null_dimension(model)
    null_prompts(tasks)
    for name, task in tasks.items():
        if task.dimension is not None and task.dimension > dimension:
            raise ConfigError(f"tasks.{name}.dimension is {task.dimension}; vectors of {model.model} have {dimension}")


def _check_precision(model: ModelConfig, spec: ModelSpec) -> None:
    if model.dtype in spec.forbidden_dtypes:
        raise ConfigError(f"dtype is {model.dtype}, in which {model.model} overflows; use bfloat16 or float32")
    if model.dtype == "int8" and model.device == "cuda":
        raise ConfigError("dtype is int8, which runs on a CPU only, and device is cuda; use bfloat16, or device: cpu")
    if model.dtype == "int8" and spec.adapters:
        raise ConfigError("dtype is int8, in which adapters cannot be switched; merge one, or use bfloat16")


def _check_weights(spec: ModelSpec) -> None:
    """What a folder lacks shows now; a hub model's weights are not downloaded for a check."""
    if spec.adapter is not None:
        try:
            metadata.version("peft")
        except metadata.PackageNotFoundError:
            raise ConfigError("adapter: needs the package peft; pip install 'refract[adapters]'") from None
    if spec.files.commit is not None:
        return
    spec.files.weight_files()
    for module in spec.after_pooling:
        if isinstance(module, Dense) and not (spec.files.folder / module.path / "model.safetensors").is_file():
            raise ConfigError(
                f"{spec.files.name}: {module.path} has no model.safetensors; pickled weights are never read"
            )


def _heads(tasks: Mapping[str, TaskConfig]) -> dict[str, HeadIdentity]:
    """The weights are all there is to a head: its config.json says nothing that they do not."""
    found = {name: find_head(name, task) for name, task in tasks.items()}
    return {
        name: HeadIdentity(head.out_features, sha256_of([head.weights_file])) for name, head in found.items() if head
    }


def _weights(files: ModelFiles) -> str:
    """The commit names a hub model's weights; a folder's are hashed."""
    return f"{files.name}@{files.commit}" if files.commit else sha256_of(files.weight_files())


def _tokenizer(files: ModelFiles) -> str:
    found = [files.folder / name for name in ("tokenizer.json", "vocab.txt") if (files.folder / name).is_file()]
    return sha256_of(found[:1]) if found else ""


def _dense_hashes(spec: ModelSpec) -> list[str]:
    if spec.files.commit is not None:
        return []
    files = [
        spec.files.folder / module.path / "model.safetensors"
        for module in spec.after_pooling
        if isinstance(module, Dense)
    ]
    return [sha256_of([file]) for file in files if file.is_file()]


def _templates(spec: ModelSpec) -> tuple[str | None, ...]:
    return (
        spec.query_template,
        spec.query_template_plain,
        spec.document_template,
        spec.document_template_plain,
        spec.symmetric_template,
    )
