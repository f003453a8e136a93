"""Validation errors as one line each: file, key, what was expected, the nearest valid choice. Never the value."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.config.base import PATTERN_MEANINGS
from pipeline.config.pipeline import Config
from pipeline.config.refused import why_refused
from pipeline.config.store import EdgeStoreConfig, QdrantStoreConfig
from pipeline.errors import nearest

STORES: dict[str, type[BaseModel]] = {"edge": EdgeStoreConfig, "qdrant": QdrantStoreConfig}
"""`store.type` -> its section."""

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
}
_FOUND = {
    str: "a string",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}


def explain(origin: str, detail: Mapping[str, Any]) -> str:
    """Returns one line for one pydantic error; `origin` names the file."""
    return f"{origin}: {'.'.join(_place(detail['loc'])) or '(the whole file)'}: {_message(detail)}"


def fields_at(location: Sequence[int | str]) -> set[str]:
    """Returns the valid keys of the section at a pydantic location; empty where no keys are known."""
    section: Any = Config
    steps = [str(part) for part in location]
    if steps[:1] == ["store"] and len(steps) > 1:
        section, steps = STORES.get(steps[1]), steps[2:]
    for step in steps:
        section = _descend(section, step)
    return set(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else set()


def _message(detail: Mapping[str, Any]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    writer = _MESSAGES.get(kind)
    if writer is not None:
        return writer(detail)
    if kind in _KINDS:
        return _wrong_type(_KINDS[kind], detail["input"], detail["loc"])
    if kind == "too_short" and context.get("min_length") == 1:
        return "must not be empty"
    return str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _literal(detail: Mapping[str, Any]) -> str:
    choices = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    return f"expected one of {choices}.{nearest(str(detail['input']), choices.split(', '))}"


def _store_type(detail: Mapping[str, Any]) -> str:
    return f"expected {' or '.join(STORES)}.{nearest(str(detail.get('ctx', {}).get('tag')), STORES)}"


def _pattern(detail: Mapping[str, Any]) -> str:
    return PATTERN_MEANINGS.get(detail["ctx"]["pattern"], str(detail["msg"]))


def _unknown_key(location: Sequence[int | str]) -> str:
    key = str(location[-1])
    if tuple(location[:-1]) == ("source",) and (reason := why_refused(key)):
        return f"is not set by hand: {reason}"
    valid = fields_at(location[:-1])
    return f"unknown key.{nearest(key.replace('.', '_'), valid)} Valid here: {', '.join(sorted(valid))}"


_MESSAGES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "extra_forbidden": lambda detail: _unknown_key(detail["loc"]),
    "missing": lambda _: "is missing",
    "union_tag_not_found": lambda _: f"is missing; expected {' or '.join(STORES)}",
    "union_tag_invalid": _store_type,
    "literal_error": _literal,
    "string_pattern_mismatch": _pattern,
}


def _wrong_type(expected: str, value: Any, location: Sequence[int | str]) -> str:
    found = _FOUND.get(type(value), type(value).__name__)
    if expected == "a number" and isinstance(value, int) and not isinstance(value, bool):
        found = "one beyond 1.8e308"
    message = f"expected {expected}, found {found}"
    if expected.endswith("number") and isinstance(value, str):
        return f"{message}; write it without quotes, in digits (a ${{NAME}} is always a string)"
    if expected == "a mapping" and (keys := fields_at(location)):
        return f"{message}. Keys: {', '.join(sorted(keys))}"
    return message


def _place(location: Sequence[int | str]) -> tuple[str, ...]:
    """The location as a person would write it, without pydantic's names of union branches and of keys."""
    parts = [str(part) for part in location]
    if len(parts) > 1 and parts[0] == "store" and parts[1] in STORES:
        del parts[1]
    if len(parts) == 1 and parts[0] == "store":
        return ("store", "type")
    return tuple(part for part in parts if part != "[key]" and not part.startswith(("list[", "dict[")))


def _descend(section: Any, part: str) -> Any:
    """The section or annotation one step below; a mapping's keys all lead to its values' type."""
    if isinstance(section, _Items):
        return section.section
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return None
    found = section.model_fields.get(part)
    return _section_in(found.annotation) if found else None


def _section_in(annotation: Any) -> Any:
    """The section inside `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = [found for argument in get_args(annotation) if (found := _section_in(argument)) is not None]
    if not sections:
        return None
    return _Items(sections[0]) if getattr(annotation, "__origin__", None) is dict else sections[0]


class _Items:
    """Marks `dict[str, section]`: one more step down reaches the section."""

    def __init__(self, section: Any) -> None:
        self.section = section
