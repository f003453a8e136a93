"""Reads what sentence-transformers files beside a model say: modules, pooling, dense layers, prompts, length."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine.files import ModelFiles
from pipeline.errors import ConfigError

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which the legacy booleans are concatenated (sentence-transformers 6.2, pooling.py)."""

ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU", "SiLU", "Sigmoid")

_LEGACY_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_LENGTH_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after the pooling."""

    path: str
    """Folder below the model's."""
    in_features: int
    out_features: int
    bias: bool
    activation: str
    """Class name in torch.nn."""


@dataclass(frozen=True, slots=True)
class Normalize:
    """L2 normalisation in the middle of the chain; the last one is ours anyway."""


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """What the files say; None where they say nothing."""

    pooling: tuple[str, ...] | None
    exclude_instruction: bool | None
    after_pooling: tuple[Dense | Normalize, ...]
    prompts: Mapping[str, str]
    max_length: int | None
    lowercase: bool


def read_sentence_files(files: ModelFiles) -> SentenceFiles:
    """Reads modules.json and the folders it names.

    Raises:
        ConfigError: a module that is not known or not there, which would silently give other vectors.
    """
    modules = files.read_json("modules.json") or []
    pooling: dict[str, Any] | None = None
    after: list[Dense | Normalize] = []
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        path = str(module.get("path", ""))
        if kind in {"Transformer", "Dropout"}:
            continue
        if kind == "Pooling" and pooling is None and not after:
            pooling = _module_config(files, path)
        elif kind == "Dense" and pooling is not None:
            after.append(_dense(files, path))
        elif kind == "Normalize" and pooling is not None:
            after.append(Normalize())
        else:
            raise ConfigError(
                f"{files.name}: modules.json has a module {module.get('type')!r} in a place or of a kind that is not "
                "supported; supported are Transformer, Pooling, then Dense and Normalize"
            )
    length, lowercase = _length(files)
    include_prompt = None if pooling is None else pooling.get("include_prompt")
    settings = files.read_json("config_sentence_transformers.json") or {}
    return SentenceFiles(
        pooling=None if pooling is None else _pooling_modes(files, pooling),
        exclude_instruction=None if include_prompt is None else not include_prompt,
        after_pooling=tuple(after),
        prompts={name: text for name, text in (settings.get("prompts") or {}).items() if isinstance(text, str)},
        max_length=length,
        lowercase=lowercase,
    )


def _pooling_modes(files: ModelFiles, config: Mapping[str, Any]) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for flag, name in _LEGACY_FLAGS.items() if config.get(flag)] or ["mean"]
    else:
        modes = [mode] if isinstance(mode, str) else list(mode)
    unknown = [mode for mode in modes if mode not in POOLINGS]
    if unknown:
        raise ConfigError(f"{files.name}: pooling {unknown[0]!r} is not supported; supported: {', '.join(POOLINGS)}")
    return tuple(modes)


def _module_config(files: ModelFiles, path: str) -> dict[str, Any]:
    """Returns what a module says of itself: without it every guess would silently give other vectors."""
    config = files.read_json(f"{path}/config.json")
    if not isinstance(config, dict):
        raise ConfigError(
            f"{files.name}: modules.json names {path}, which has no config.json in {files.folder}; copy the whole "
            f"model folder"
        )
    return config


def _dense(files: ModelFiles, path: str) -> Dense:
    config = _module_config(files, path)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"{files.name}: {path} has the activation {activation!r}; supported: {', '.join(ACTIVATIONS)}"
        )
    inputs = config.get("module_input_name") or "sentence_embedding"
    if inputs != "sentence_embedding" or config.get("use_residual"):
        raise ConfigError(f"{files.name}: {path} works on {inputs!r} or with a residual, which is not supported")
    return Dense(path, config["in_features"], config["out_features"], config.get("bias", True), activation)


def _length(files: ModelFiles) -> tuple[int | None, bool]:
    """Longest prompt in tokens, and whether texts are lowercased, from whichever of the seven files is there."""
    for name in _LENGTH_FILES:
        config = files.read_json(name)
        if config is not None:
            length = config.get("max_seq_length")
            return (int(length) if length else None), bool(config.get("do_lower_case"))
    return None, False


_INSTRUCT = re.compile(r"^(Instruct: ).*(\s?\n\s?Query: ?)$", re.DOTALL)
_LABEL = re.compile(r"^task: (.+) \| query: $")


def derive_templates(prompts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the catalogue fields that shipped prompts give away; empty when they say nothing.

    A prompt `Instruct: … Query:` shows a free-form family and its exact tail: one space decides.
    """
    document = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    for text in prompts.values():
        match = _INSTRUCT.match(text)
        if match:
            return {
                "instruction_style": "free_form",
                "query_template": f"{match[1]}{{instruction}}{match[2]}{{text}}",
                "document_template": document + "{text}",
            }
    labels = sorted({match[1] for text in prompts.values() if (match := _LABEL.match(text))})
    if labels:
        return {
            "instruction_style": "task_label",
            "query_template": "task: {instruction} | query: {text}",
            "document_template": document + "{text}",
            "labels": tuple(labels),
        }
    query = prompts.get("query", "")
    if query or document:
        return {
            "instruction_style": "fixed_prefix",
            "query_template": query + "{text}",
            "document_template": document + "{text}",
        }
    return {}
