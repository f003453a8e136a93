"""What a user may set by hand for a model, and which catalogue entry holds for it."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.config.model import ModelConfig
from pipeline.engine.catalogue import CatalogueEntry, catalogue
from pipeline.engine.files import PACKAGED
from pipeline.errors import ConfigError, nearest

OVERRIDES: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "like": str,
        "instruction_style": str,
        "query_template": str,
        "query_template_plain": str,
        "document_template": str,
        "document_template_plain": str,
        "symmetric_template": str,
        "labels": list,
        "default_label": str,
        "pooling": (str, list),
        "exclude_instruction": bool,
        "strip_text": bool,
        "append_eos": bool,
        "bidirectional": bool,
        "matryoshka_dims": list,
        "layer_norm_before_truncation": bool,
        "max_length": int,
        "forbidden_dtypes": list,
        "remote_code": bool,
    }
)
"""What `overrides` may hold, beside `like`: the id of a catalogue entry whose facts also hold for this model."""


def check_overrides(config: ModelConfig) -> None:
    """Refuses an unknown override, or one of the wrong type. Raises ConfigError."""
    for name, value in config.overrides.items():
        if name not in OVERRIDES:
            raise ConfigError(
                f"{config.model}: overrides has no field {name!r}.{nearest(name, OVERRIDES)} "
                f"Valid: {', '.join(sorted(OVERRIDES))}"
            )
        expected = OVERRIDES[name]
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            names = " or ".join(kind.__name__ for kind in (expected if isinstance(expected, tuple) else (expected,)))
            raise ConfigError(f"{config.model}: overrides.{name} is a {type(value).__name__}; expected {names}")


def catalogue_entry(config: ModelConfig) -> CatalogueEntry | None:
    """Returns the entry that holds for the model, None when no entry does.

    Found by `like`, by hub id, by the packaged model's id, or by a folder named owner/name, owner_name or
    owner--name. Raises ConfigError when `like` names no entry.
    """
    entries = catalogue()
    like = config.overrides.get("like")
    if like is not None:
        if like not in entries:
            raise ConfigError(f"{config.model}: overrides.like: the catalogue has no {like!r}.{nearest(like, entries)}")
        return entries[like]
    if config.model in PACKAGED:
        return entries[PACKAGED[config.model][1]]
    parts = config.model.rstrip("/").split("/")
    names = ["/".join(parts[-2:]), parts[-1].replace("--", "/"), parts[-1].replace("_", "/", 1)]
    return next((entries[name] for name in names if name in entries), None)
