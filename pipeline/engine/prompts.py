"""What the model sees around a text: one `Prompt` per task and side, from the model's templates."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.model import TaskConfig
from pipeline.engine.catalogue import FREE_STYLES, INSTRUCTABLE
from pipeline.engine.spec import ModelSpec
from pipeline.errors import ConfigError, nearest

_SIDES = {"query": "query_template", "document": "document_template", "passage": "document_template"}
"""Labels of fixed-prefix models: which side's prefix a symmetric task takes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: `head + text + tail` is what the model sees."""

    head: str
    tail: str
    max_length: int
    """Tokens, special ones included; the text is cut to fit."""
    dimension: int
    adapter: str | None
    excluded_head: str
    """The part of the head whose tokens stay out of the pooling; empty pools everything."""


def build_prompts(spec: ModelSpec, tasks: Mapping[str, TaskConfig]) -> dict[str, Prompt]:
    """Returns every prompt of the model's tasks by name: `<task>`, and `<task>:query` for retrieval.

    Raises:
        ConfigError: a task asks for what this model cannot do.
    """
    prompts: dict[str, Prompt] = {}
    for name, task in tasks.items():
        _check_sizes(spec, name, task)
        if task.mode == "symmetric":
            prompts[name] = _symmetric(spec, name, task)
        else:
            prompts[name] = _document(spec, name, task)
            prompts[f"{name}:query"] = _query(spec, name, task)
    return prompts


def _symmetric(spec: ModelSpec, name: str, task: TaskConfig) -> Prompt:
    place, instruction, style = f"tasks.{name}.instruction", task.instruction, spec.instruction_style
    if style in FREE_STYLES:
        template = spec.query_template if instruction is not None else _plain(spec, place, spec.query_template_plain)
        return _prompt(spec, task, template, instruction)
    if style == "adapter":
        return _prompt(spec, task, spec.symmetric_template or "{text}", None, _label(spec, place, instruction))
    if style == "task_label":
        return _prompt(spec, task, spec.query_template, _label(spec, place, instruction))
    if style == "fixed_prefix":
        return _prompt(spec, task, _fixed_symmetric(spec, place, instruction), None)
    _refuse_instruction(spec, place, instruction)
    return _prompt(spec, task, spec.query_template, None)


def _document(spec: ModelSpec, name: str, task: TaskConfig) -> Prompt:
    adapter = None
    if spec.instruction_style == "adapter":
        adapter = _label(spec, f"tasks.{name}.instruction", _side_adapter(spec, task.instruction, "passage"))
    elif spec.instruction_style not in FREE_STYLES | {"task_label"}:
        _refuse_instruction(spec, f"tasks.{name}.instruction", task.instruction)
    if "{instruction}" in spec.document_template and task.instruction is not None:
        return _prompt(spec, task, spec.document_template, task.instruction, adapter)
    plain = spec.document_template_plain if "{instruction}" in spec.document_template else spec.document_template
    return _prompt(spec, task, _plain(spec, f"tasks.{name}.instruction", plain), None, adapter)


def _query(spec: ModelSpec, name: str, task: TaskConfig) -> Prompt:
    key = "instruction" if task.query_instruction is None else "query_instruction"
    place = f"tasks.{name}.{key}"
    instruction = task.query_instruction if task.query_instruction is not None else task.instruction
    style = spec.instruction_style
    if style in FREE_STYLES and instruction is None:
        return _prompt(spec, task, _plain(spec, place, spec.query_template_plain), None)
    if style == "task_label":
        label = _label(spec, place, instruction if instruction is not None else spec.default_label)
        return _prompt(spec, task, spec.query_template, label)
    if style == "adapter":
        adapter = _label(spec, place, _side_adapter(spec, instruction, "query"))
        return _prompt(spec, task, spec.query_template, None, adapter)
    if style not in FREE_STYLES:
        _refuse_instruction(spec, place, instruction)
    return _prompt(spec, task, spec.query_template, instruction)


def _prompt(
    spec: ModelSpec, task: TaskConfig, template: str, instruction: str | None, adapter: str | None = None
) -> Prompt:
    """Splits at {text} first, so that an instruction which holds `{text}` stays what it is."""
    if spec.instruction_style == "chat" and instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."  # as the reference code of Qwen3-VL-Embedding does
    head, _, tail = template.partition("{text}")
    head, tail = (part.replace("{instruction}", instruction or "") for part in (head, tail))
    excluded = head if spec.exclude_instruction else ""
    return Prompt(
        head=head.lstrip() if spec.strip_text else head,
        tail=tail,
        max_length=min(task.max_tokens or spec.max_length, spec.max_length),
        dimension=task.dimension or spec.dimension,
        adapter=adapter,
        excluded_head=excluded.strip() if spec.strip_text else excluded,
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


def _check_sizes(spec: ModelSpec, name: str, task: TaskConfig) -> None:
    if task.max_tokens is not None and task.max_tokens > spec.max_length:
        raise ConfigError(
            f"tasks.{name}.max_tokens is {task.max_tokens}; {spec.files.name} takes at most {spec.max_length}"
        )
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
