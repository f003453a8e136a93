"""What a run leaves behind: an adapter or heads, files for sentence-transformers, and a card. Appears whole or not."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pipeline.engine.prompts import Prompt
from pipeline.engine.spec import ModelSpec
from pipeline.engine.st_files import Dense
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.tuning.encoder import LoraEncoder
from pipeline.tuning.fitting import Head

CARD = "card.json"
"""Written last but for the renaming: a folder that has it is whole."""

CHECKPOINT = "checkpoint.safetensors"
"""In the folder `OUTPUT.unfinished` while a run is not done."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_MODULES = "sentence_transformers.models."


@dataclass(frozen=True, slots=True)
class Card:
    """What a folder says about itself."""

    facts: Mapping[str, Any]
    """card.json"""
    readme: str
    """README.md"""


def unfinished_folder(output: Path) -> Path:
    """Returns where a run keeps its checkpoint until its output is whole."""
    return output.with_name(f"{output.name}.unfinished")


def check_output(output: Path) -> None:
    """Raises ConfigError where something is in the way that a run would replace."""
    if not output.exists():
        return
    if not output.is_dir():
        raise ConfigError(f"--output {output}: is a file; expected a folder that does not exist yet")
    if (output / CARD).is_file():
        raise ConfigError(f"--output {output}: holds a finished run; name another folder, or remove this one")
    if any(output.iterdir()):
        raise ConfigError(f"--output {output}: holds files of something else; expected a folder that does not exist")


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `output` at the end. Raises EnvironmentFault where the disk is full."""
    partial = output.with_name(f"{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if output.is_dir():
            output.rmdir()
        partial.rename(output)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise EnvironmentFault(f"{output}: cannot be written ({error})") from error


def write_adapter(
    folder: Path, encoder: LoraEncoder, prompts: Mapping[str, Prompt], *, base: str, revision: str | None
) -> None:
    """Writes the adapter in half precision, and the files by which sentence-transformers loads it.

    Args:
        folder: Exists.
        encoder: Holds the weights.
        prompts: Of each task, as sentence-transformers is to know them.
        base: Name or folder of the model below, as written into the adapter.
        revision: Its commit, None for a folder.
    """
    config = encoder.model.peft_config["default"]
    weights = peft.get_peft_model_state_dict(encoder.model)
    _write_tensors(
        folder / "adapter_model.safetensors",
        {name: value.detach().to(torch.float16).cpu().contiguous() for name, value in weights.items()},
    )
    settings = config.to_dict() | {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    _write_json(folder / "adapter_config.json", plain)
    _write_sentence_files(folder, encoder.spec, prompts)


def half_precision(encoder: LoraEncoder) -> None:
    """Rounds the weights to what `write_adapter` stores, so that figures are of the stored ones."""
    encoder.load({name: value.detach().half().float() for name, value in encoder.weights.items()})


def write_head(folder: Path, head: Head) -> None:
    """Writes a head in sentence-transformers' `Dense` format. The folder is created."""
    folder.mkdir()
    outputs, inputs = head.weight.shape
    _write_json(
        folder / "config.json",
        {
            "in_features": inputs,
            "out_features": outputs,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    _write_tensors(folder / "model.safetensors", {"linear.weight": torch.from_numpy(head.weight.copy())})


def write_card(folder: Path, card: Card) -> None:
    """Writes README.md and card.json."""
    (folder / "README.md").write_text(card.readme, encoding="utf-8")
    _write_json(folder / CARD, card.facts)


def _write_sentence_files(folder: Path, spec: ModelSpec, prompts: Mapping[str, Prompt]) -> None:
    pooling = spec.pooling[0] if len(spec.pooling) == 1 else list(spec.pooling)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "embedding_dimension": spec.hidden_size,
            "pooling_mode": pooling,
            "include_prompt": not spec.exclude_instruction,
        },
    )
    for module in spec.after_pooling:
        if isinstance(module, Dense):
            path = f"{len(modules)}_Dense"
            shutil.copytree(spec.files.folder / module.path, folder / path)
            modules.append((path, "Dense"))
        else:
            modules.append((f"{len(modules)}_Normalize", "Normalize"))
    if modules[-1][1] != "Normalize":
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    _write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": _MODULES + kind}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    _write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": spec.max_length, "do_lower_case": spec.lowercase}
    )
    prefixes = {name: prompt.content.before for name, prompt in prompts.items() if not prompt.content.after}
    _write_json(folder / "config_sentence_transformers.json", {"prompts": prefixes, "default_prompt_name": None})
    for name in _TOKENIZER_FILES:
        if (spec.files.folder / name).is_file():
            shutil.copy(spec.files.folder / name, folder / name)


def _write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, str(file), metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors lets nobody else read it


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
