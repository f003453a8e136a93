"""What the model sees around a text: one `Prompt` per task and side, from the model's templates."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.config.model import TaskConfig
from pipeline.engine.catalogue import FREE_STYLES, INSTRUCTABLE
from pipeline.engine.head_files import HeadFiles, find_head
from pipeline.engine.spec import ModelSpec
from pipeline.errors import ConfigError, nearest

_SIDES = {"query": "query_template", "document": "document_template", "passage": "document_template"}
"""Labels of fixed-prefix models: which side's prefix a symmetric task takes."""


class Content(NamedTuple):
    """Everything of a prompt that decides what a pass through the model makes of a text."""

    before: str
    after: str
    """`before + text + after` is what the model sees."""
    max_length: int
    """Tokens, special ones included; the text is cut to fit."""
    adapter: str | None
    excluded: str
    """The part of `before` whose tokens stay out of the pooling; empty pools everything."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, and what becomes of its rows behind the model. Prompts of equal content share a pass."""

    content: Content
    dimension: int
    """Values that are kept of a row."""
    head: HeadFiles | None = None
    """The linear map behind the model, None without one."""


def build_prompts(spec: ModelSpec, tasks: Mapping[str, TaskConfig]) -> dict[str, Prompt]:
    """Returns every prompt of the model's tasks by name: `<task>`, and `<task>:query` for retrieval.

    Raises:
        ConfigError: a task asks for what this model cannot do.
    """
    prompts: dict[str, Prompt] = {}
    for name, task in tasks.items():
        head = find_head(name, task)
        _check_sizes(spec, name, task, head)
        if task.mode == "symmetric":
            sides = {name: _symmetric(spec, name, task)}
        else:
            sides = {name: _document(spec, name, task), f"{name}:query": _query(spec, name, task)}
        width = spec.dimension if head is None else head.out_features
        prompts |= {side: Prompt(content, task.dimension or width, head) for side, content in sides.items()}
    return prompts


def _symmetric(spec: ModelSpec, name: str, task: TaskConfig) -> Content:
    place, instruction, style = f"tasks.{name}.instruction", task.instruction, spec.instruction_style
    if style in FREE_STYLES:
        template = spec.query_template if instruction is not None else _plain(spec, place, spec.query_template_plain)
        return _content(spec, task, template, instruction)
    if style == "adapter":
        return _content(spec, task, spec.symmetric_template or "{text}", None, _label(spec, place, instruction))
    if style == "task_label":
        return _content(spec, task, spec.query_template, _label(spec, place, instruction))
    if style == "fixed_prefix":
        return _content(spec, task, _fixed_symmetric(spec, place, instruction), None)
    _refuse_instruction(spec, place, instruction)
    return _content(spec, task, spec.query_template, None)


def _document(spec: ModelSpec, name: str, task: TaskConfig) -> Content:
    adapter = None
    if spec.instruction_style == "adapter":
        adapter = _label(spec, f"tasks.{name}.instruction", _side_adapter(spec, task.instruction, "passage"))
    elif spec.instruction_style not in FREE_STYLES | {"task_label"}:
        _refuse_instruction(spec, f"tasks.{name}.instruction", task.instruction)
    if "{instruction}" in spec.document_template and task.instruction is not None:
        return _content(spec, task, spec.document_template, task.instruction, adapter)
    plain = spec.document_template_plain if "{instruction}" in spec.document_template else spec.document_template
    return _content(spec, task, _plain(spec, f"tasks.{name}.instruction", plain), None, adapter)


def _query(spec: ModelSpec, name: str, task: TaskConfig) -> Content:
    key = "instruction" if task.query_instruction is None else "query_instruction"
    place = f"tasks.{name}.{key}"
    instruction = task.query_instruction if task.query_instruction is not None else task.instruction
    style = spec.instruction_style
    if style in FREE_STYLES and instruction is None:
        return _content(spec, task, _plain(spec, place, spec.query_template_plain), None)
    if style == "task_label":
        label = _label(spec, place, instruction if instruction is not None else spec.default_label)
        return _content(spec, task, spec.query_template, label)
    if style == "adapter":
        adapter = _label(spec, place, _side_adapter(spec, instruction, "query"))
        return _content(spec, task, spec.query_template, None, adapter)
    if style not in FREE_STYLES:
        _refuse_instruction(spec, place, instruction)
    return _content(spec, task, spec.query_template, instruction)


def _content(
    spec: ModelSpec, task: TaskConfig, template: str, instruction: str | None, adapter: str | None = None
) -> Content:
    """Splits at {text} first, so that an instruction which holds `{text}` stays what it is."""
    if spec.instruction_style == "chat" and instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."  # as the reference code of Qwen3-VL-Embedding does
    before, _, after = template.partition("{text}")
    before, after = (part.replace("{instruction}", instruction or "") for part in (before, after))
    excluded = before if spec.exclude_instruction else ""
    return Content(
        before=before.lstrip() if spec.strip_text else before,
        after=after,
        max_length=min(task.max_tokens or spec.max_length, spec.max_length),
        adapter=adapter,
        excluded=excluded.strip() if spec.strip_text else excluded,
    )


def _plain(spec: ModelSpec, place: str, template: str | None) -> str:
    """The form without an instruction, where the model has one."""
    if template is None:
        raise ConfigError(f"{place} is missing, and {spec.files.name} has no form without one: ask it a question")
    return template


def _fixed_symmetric(spec: ModelSpec, place: str, side: str | None) -> str:
    if side is None:
        if spec.symmetric_template is None:
            raise ConfigError(
                f"{place}: {spec.files.name} was trained with fixed prefixes, and nobody says which one both sides "
                "of a symmetric task take: give `instruction: query` or `instruction: document`, use `mode: "
                "retrieval`, or set overrides.symmetric_template"
            )
        return spec.symmetric_template
    if side not in _SIDES:
        _refuse_instruction(spec, place, side)
    return spec.query_template if _SIDES[side] == "query_template" else spec.document_template


def _label(spec: ModelSpec, place: str, label: str | None) -> str:
    """A label of the closed list; without a list (adapters and labels unknown) there is nothing to allow."""
    kind = "adapters" if spec.instruction_style == "adapter" else "labels"
    if label is None or label not in spec.labels:
        given = "is missing" if label is None else f"is {label!r}"
        raise ConfigError(
            f"{place} {given}, but {spec.files.name} knows only its own {kind}: "
            f"{', '.join(spec.labels) or 'none given'}.{nearest(label or '', spec.labels)}{_suggestion()}"
        )
    return label


def _side_adapter(spec: ModelSpec, label: str | None, side: str) -> str | None:
    """`retrieval` stands for the pair `retrieval.query` and `retrieval.passage` where a model has both."""
    sided = f"{label or 'retrieval'}.{side}"
    return sided if sided in spec.labels else label or ("retrieval" if "retrieval" in spec.labels else None)


def _refuse_instruction(spec: ModelSpec, place: str, instruction: str | None) -> None:
    if instruction is None:
        return
    if spec.instruction_style == "fixed_prefix":
        raise ConfigError(
            f"{place}: {spec.files.name} was trained with fixed prefixes and takes no instruction; in a symmetric task "
            f"`instruction` may only be one of {', '.join(_SIDES)}.{nearest(instruction, _SIDES)}{_suggestion()}"
        )
    raise ConfigError(
        f"{place}: {spec.files.name} was trained without instructions and cannot take one.{_suggestion()}"
    )


def _suggestion() -> str:
    return f" Models that take an instruction in your own words: {', '.join(INSTRUCTABLE)}"


def _check_sizes(spec: ModelSpec, name: str, task: TaskConfig, head: HeadFiles | None) -> None:
    if task.max_tokens is not None and task.max_tokens > spec.max_length:
        raise ConfigError(
            f"tasks.{name}.max_tokens is {task.max_tokens}; {spec.files.name} takes at most {spec.max_length}"
        )
    if head is not None:
        _check_head(spec, name, task, head)
        return
    if task.dimension is None or task.dimension == spec.dimension:
        return
    if task.dimension > spec.dimension:
        raise ConfigError(
            f"tasks.{name}.dimension is {task.dimension}; vectors of {spec.files.name} have {spec.dimension}"
        )
    sizes = spec.matryoshka_dims
    if sizes is None:
        raise ConfigError(
            f"tasks.{name}.dimension: nobody says to which sizes {spec.files.name} may be cut; if its card does, give "
            "`overrides: {matryoshka_dims: [...]}`"
        )
    if sizes[1:] == (-1,) and task.dimension >= sizes[0]:
        return
    if task.dimension not in sizes:
        choices = ", ".join(str(size) for size in sizes if size > 0)
        raise ConfigError(
            f"tasks.{name}.dimension is {task.dimension}, but {spec.files.name} was "
            + (f"trained to be cut to {choices} only" if choices else "not trained to be cut")
        )


def _check_head(spec: ModelSpec, name: str, task: TaskConfig, head: HeadFiles) -> None:
    """A head is cut wherever the user says: which sizes it was trained for is not in its files."""
    if head.in_features != spec.dimension:
        raise ConfigError(
            f"tasks.{name}.head: {head.config_file} has in_features {head.in_features}; expected {spec.dimension}, the "
            f"dimension of {spec.files.name}. It was trained for another model"
        )
    if task.dimension is not None and task.dimension > head.out_features:
        raise ConfigError(
            f"tasks.{name}.dimension is {task.dimension}; vectors of its head {head.folder} have {head.out_features}"
        )
