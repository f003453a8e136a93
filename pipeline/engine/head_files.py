"""A task's head on disk: a linear map in the format of sentence-transformers' `Dense`. No torch in here.

    config.json        {"in_features": 384, "out_features": 384, "bias": false,
                        "activation_function": "torch.nn.modules.linear.Identity"}
    model.safetensors  linear.weight (out_features, in_features), and linear.bias (out_features,) if `bias`
    fitted_for.json    the model that it was fitted for, as `pipeline.engine.entry.identify` knows it; written by
                       `refract tune`, and absent from heads of others

Other files of the folder are not read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from pipeline.config.model import TaskConfig
from pipeline.errors import ConfigError, nearest
from pipeline.records.batches import Float32

FITTED_FOR = "fitted_for.json"
"""In a head's folder."""

FITTED_PARTS = ("weights", "adapter", "tokenizer", "pooling", "exclude_instruction", "after_pooling", "dense")
"""Parts of a model's identity that a head depends on. Lengths and precision may differ."""

_WEIGHT, _BIAS = "linear.weight", "linear.bias"
_SHOWN = 60
"""Characters of a part in a message."""

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Of safetensors -> of numpy, which has no bfloat16."""


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """One task's head as its config.json describes it."""

    key: str
    """Of the configuration, for messages: `tasks.<task>.head`."""
    folder: Path
    in_features: int
    out_features: int
    bias: bool

    @property
    def config_file(self) -> Path:
        """What it is."""
        return self.folder / "config.json"

    @property
    def weights_file(self) -> Path:
        """Its values."""
        return self.folder / "model.safetensors"


def find_head(task: str, config: TaskConfig) -> HeadFiles | None:
    """Returns what a task's head is, None without one. The weights are not read.

    Raises:
        ConfigError: no such folder, a file is missing, or it describes something other than a linear map.
    """
    if config.head is None:
        return None
    key, folder = f"tasks.{task}.head", config.head.expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{key}: {folder} is not a folder; expected one with config.json and model.safetensors")
    settings = _settings(key, folder / "config.json")
    head = HeadFiles(
        key,
        folder.resolve(),
        _size(key, folder, settings, "in_features"),
        _size(key, folder, settings, "out_features"),
        settings["bias"],
    )
    if not head.weights_file.is_file():
        pickled = "; pytorch_model.bin is a pickle, which is never read" if any(folder.glob("*.bin")) else ""
        raise ConfigError(f"{key}: {folder} has no model.safetensors{pickled}")
    return head


def _settings(key: str, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"{key}: {file.parent} has no config.json; expected the files of a Dense module")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{key}: {file} is not valid JSON ({type(error).__name__})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{key}: {file} holds a {type(settings).__name__}; expected an object")
    # What sentence-transformers 6.2 takes where the key is missing.
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation.rpartition(".")[2] != "Identity":
        raise ConfigError(
            f"{key}: {file} has activation_function {activation!r}; expected torch.nn.modules.linear.Identity, as a "
            "head is linear"
        )
    for name, expected in (("module_input_name", "sentence_embedding"), ("module_output_name", "sentence_embedding")):
        if settings.get(name) not in {None, expected}:
            raise ConfigError(f"{key}: {file} has {name} {settings[name]!r}; expected {expected!r}")
    if settings.get("use_residual"):
        raise ConfigError(f"{key}: {file} has use_residual true; expected false")
    if not isinstance(settings.setdefault("bias", True), bool):
        raise ConfigError(f"{key}: {file} has bias {settings['bias']!r}; expected true or false")
    return settings


def _size(key: str, folder: Path, settings: dict[str, Any], name: str) -> int:
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = repr(value) if name in settings else f"missing.{nearest(name, settings)}"
        raise ConfigError(f"{key}: {folder / 'config.json'}: {name} is {found}; expected a whole number from 1")
    return value


def fitted_parts(parts: Mapping[str, str]) -> dict[str, str]:
    """Returns what fitted_for.json holds of a model's identity."""
    return {name: parts[name] for name in FITTED_PARTS if name in parts}


def check_fitted(head: HeadFiles, parts: Mapping[str, str]) -> None:
    """Raises ConfigError where a head says that it was fitted for another model.

    Args:
        head: Where fitted_for.json may be.
        parts: Of the identity of the model that it is to stand behind.
    """
    file = head.folder / FITTED_FOR
    if not file.is_file():
        return
    try:
        fitted = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{head.key}: {file} is not valid JSON ({type(error).__name__})") from None
    if not isinstance(fitted, dict):
        raise ConfigError(f"{head.key}: {file} holds a {type(fitted).__name__}; expected an object")
    now = fitted_parts(parts)
    different = [name for name in FITTED_PARTS if _differs(name, fitted.get(name), now.get(name))]
    if different:
        name = different[0]
        raise ConfigError(
            f"{head.key}: {head.folder} was fitted for another model; different: {', '.join(different)} "
            f"({name}: {_shown(fitted.get(name))}, now {_shown(now.get(name))}). Fit it again with `refract tune`, or "
            "name the model that it was fitted for"
        )


def _differs(name: str, fitted: object, now: object) -> bool:
    if name == "weights" and ("@" in str(fitted)) != ("@" in str(now)):
        return False  # a hub model's commit says nothing of a folder's hash
    return fitted != now


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def read_head(head: HeadFiles) -> tuple[Float32, Float32 | None]:
    """Returns the weight, (out_features, in_features), and the bias, (out_features,) or None, in float32.

    Raises:
        ConfigError: the file cannot be read, or holds other tensors than config.json says, or values that are not
            finite in float32.
    """
    file = head.weights_file
    try:
        tensors = dict(deserialize(file.read_bytes()))  # type: ignore[no-untyped-call] # safetensors leaves it bare
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{head.key}: {file} cannot be read as safetensors ({type(error).__name__})") from None
    expected = {_WEIGHT: [head.out_features, head.in_features]} | ({_BIAS: [head.out_features]} if head.bias else {})
    if tensors.keys() != expected.keys():
        raise ConfigError(
            f"{head.key}: {file} holds {', '.join(sorted(tensors)) or 'no tensor'}; expected {', '.join(expected)}, as "
            f"config.json has bias {str(head.bias).lower()}"
        )
    values = {name: _values(head, name, tensors[name], shape) for name, shape in expected.items()}
    return values[_WEIGHT], values.get(_BIAS)


def _values(head: HeadFiles, name: str, tensor: dict[str, Any], shape: list[int]) -> Float32:
    where, dtype = f"{head.key}: {head.weights_file}: {name}", tensor["dtype"]
    if tensor["shape"] != shape:
        raise ConfigError(f"{where} has the shape {tensor['shape']}; expected {shape}, as config.json says")
    if dtype not in _DTYPES:
        raise ConfigError(f"{where} holds {dtype}; expected one of {', '.join(_DTYPES)}")
    raw = np.frombuffer(tensor["data"], _DTYPES[dtype])
    with np.errstate(over="ignore"):
        values = (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else raw.astype(np.float32)
    if not np.isfinite(values).all():
        raise ConfigError(
            f"{where} has {int((~np.isfinite(values)).sum())} of {values.size} values that are not finite; expected "
            "finite ones"
        )
    return np.asarray(values.reshape(shape), np.float32)
