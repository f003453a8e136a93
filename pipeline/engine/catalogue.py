"""The catalogue: what model authors say about templates, pooling and end tokens, with a source per entry."""

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal

InstructionStyle = Literal["free_form", "question_suffix", "chat", "task_label", "fixed_prefix", "adapter", "none"]
STYLES: tuple[InstructionStyle, ...] = (
    "free_form",
    "question_suffix",
    "chat",
    "task_label",
    "fixed_prefix",
    "adapter",
    "none",
)
FREE_STYLES = frozenset({"free_form", "question_suffix", "chat"})
"""Kinds that take an instruction in anybody's own words."""

INSTRUCTABLE = ("Qwen/Qwen3-Embedding-0.6B", "intfloat/multilingual-e5-large-instruct", "hkunlp/instructor-base")
"""What a message names when a model takes no instruction: small, known, and free of remote code."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model as its authors describe it. None means nobody confirmed it: files or the user must say."""

    id: str
    family: str
    model_type: str | None
    instruction_style: InstructionStyle | None
    query_template: str | None
    """`{instruction}` and `{text}` are replaced literally. Used by retrieval queries and free-form symmetric tasks."""
    query_template_plain: str | None
    """The same without an instruction."""
    document_template: str | None
    document_template_plain: str | None
    symmetric_template: str | None
    """Only where a symmetric task differs from a query: fixed prefixes."""
    labels: tuple[str, ...]
    """Closed list of task labels or adapter names."""
    default_label: str | None
    pooling: str | None
    exclude_instruction: bool | None
    """Whether the instruction's tokens stay out of the pooling."""
    strip_text: bool
    """Whether the reference code strips the text before it joins it."""
    append_eos: bool | None
    """None keeps the tokenizer's own special tokens."""
    bidirectional: bool | None
    matryoshka_dims: tuple[int, ...] | None
    """Sizes the model was trained to be cut to; (32, -1) means any from 32; empty none; None unknown."""
    layer_norm_before_truncation: bool
    max_length: int | None
    forbidden_dtypes: tuple[str, ...]
    remote_code: bool | None
    license: str | None
    parameters: int | None
    notes: str | None
    native_route: str | None
    unconfirmed: tuple[str, ...]
    sources: tuple[str, ...]


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """Returns all entries by id."""
    text = resources.files("pipeline.engine").joinpath("catalogue.json").read_text(encoding="utf-8")
    return {row["id"]: _entry(row) for row in json.loads(text)}


def _entry(row: dict[str, Any]) -> CatalogueEntry:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return CatalogueEntry(**{field.name: values[field.name] for field in fields(CatalogueEntry)})
