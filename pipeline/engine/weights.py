"""Loads a transformer and its dense layers: safetensors only, never remote code, every weight accounted for."""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.config.model import ModelConfig
from pipeline.engine.cpu_kernels import cpu_computes_in_bfloat16, cpu_computes_in_int8
from pipeline.engine.spec import ENCODER_TYPES, ModelSpec
from pipeline.engine.st_files import Dense
from pipeline.errors import ConfigError, EnvironmentFault

_T5_TYPES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
_POOLER_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "mpnet", "nomic_bert"})
"""Their AutoModel has a pooler that no embedding uses; leaving it out saves a matrix and a warning."""


def pick_device(config: ModelConfig) -> torch.device:
    """Returns where to run. Raises EnvironmentFault when CUDA is asked for and not there."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise EnvironmentFault("device is cuda, but torch sees no CUDA device")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def pick_dtype(config: ModelConfig, spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Returns the precision of the weights: as configured; auto is bfloat16 where the hardware computes in it.

    A CPU without such instructions emulates them, a hundred times slower than float32. int8 is what linear layers
    alone become: around them it is auto.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = config.dtype
    if name == "int8":
        _check_int8(spec, device)
        name = "auto"
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" or cpu_computes_in_bfloat16() else "float32"
        if name in spec.forbidden_dtypes:
            name = "float32"
    if name in spec.forbidden_dtypes:
        raise ConfigError(f"{spec.files.name}: must not run in {name}; use bfloat16 or float32")
    return names[name]


def _check_int8(spec: ModelSpec, device: torch.device) -> None:
    if device.type != "cpu":
        raise ConfigError(f"{spec.files.name}: dtype int8 runs on a CPU only, and the device is {device.type}")
    if not cpu_computes_in_int8():
        raise ConfigError(
            f"{spec.files.name}: dtype is int8, but this processor has neither avx512_vnni nor avx_vnni nor amx_int8; "
            "use auto"
        )


def load_transformer(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Returns the encoder or decoder without any head, in evaluation mode, adapter applied.

    Raises:
        ConfigError: the native class does not know the architecture, or weights are missing or unreadable.
    """
    folder = str(spec.files.folder)
    spec.files.weight_files()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call] # transformers leaves it bare
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # as above
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError(
            f"{spec.files.name}: transformers {transformers.__version__} does not know model_type {spec.model_type!r} "
            f"({error})"
        ) from error
    if spec.bidirectional and spec.model_type not in ENCODER_TYPES:
        _look_both_ways(config)
    kwargs: dict[str, Any] = {"add_pooling_layer": False} if spec.model_type in _POOLER_TYPES else {}
    loader = getattr(transformers, _T5_TYPES.get(spec.model_type, "AutoModel"))
    try:
        model, info = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **kwargs,
        )
    except (ValueError, KeyError, OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{spec.files.name}: its weights cannot be loaded ({error})") from error
    missing = [key for key in info["missing_keys"] if "pooler" not in key]
    if missing:
        raise ConfigError(
            f"{spec.files.name}: {len(missing)} weights are not in its files, the first is {min(missing)!r}; "
            "they would be random"
        )
    module: nn.Module = _with_adapters(spec, model)
    module.requires_grad_(requires_grad=False)
    return module.to(device).eval()


def _look_both_ways(config: Any) -> None:
    """Gemma has a switch of its own, which halves the sliding window when set; the rest honour is_causal (>= 5.2)."""
    if not hasattr(config, "use_bidirectional_attention"):
        config.is_causal = False
    elif not config.use_bidirectional_attention:
        config.use_bidirectional_attention = True
        config.sliding_window = config.sliding_window // 2 + 1


def _with_adapters(spec: ModelSpec, model: nn.Module) -> nn.Module:
    """One adapter is merged into the weights; several stay beside them and are switched by name."""
    if spec.adapter is None:
        return model
    try:
        from peft import PeftModel  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise ConfigError("adapter: needs the package peft; pip install 'refract[adapters]'") from error
    folders = {name: spec.adapter.folder / name for name in spec.adapters} or {"default": spec.adapter.folder}
    wrapped: Any = model
    for name, folder in folders.items():
        _check_adapter(folder)
        with warnings.catch_warnings():
            # peft 0.21 reads an attribute that transformers 5 has renamed
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            if wrapped is model:
                wrapped = PeftModel.from_pretrained(model, str(folder), adapter_name=name, autocast_adapter_dtype=False)
            else:
                wrapped.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False)
    merged: nn.Module = wrapped if spec.adapters else wrapped.merge_and_unload()
    return merged


def _check_adapter(folder: Path) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        raise ConfigError(f"adapter {folder}: has no adapter_model.safetensors")


def load_dense(spec: ModelSpec, module: Dense, device: torch.device) -> nn.Sequential:
    """Returns a dense layer with its activation, in float32 whatever the model's precision.

    Raises:
        ConfigError: no safetensors weights, or other shapes than its config.json says.
    """
    file = spec.files.folder / module.path / "model.safetensors"
    if not file.is_file():
        raise ConfigError(
            f"{spec.files.name}: {module.path} has no model.safetensors (pickled weights are never read); convert "
            f"{module.path}/pytorch_model.bin once on a machine you trust"
        )
    weights = load_file(str(file))
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias)
    try:
        linear.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ConfigError(f"{file}: does not fit its config.json ({error})") from error
    activation: nn.Module = getattr(nn, module.activation)()
    dense = nn.Sequential(linear, activation).to(device).eval()
    dense.requires_grad_(requires_grad=False)
    return dense
