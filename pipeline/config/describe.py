"""The configuration's reference: every key with its type, its default and what it does, from the models themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.config.explain import STORES
from pipeline.config.pipeline import Config


@dataclass(frozen=True, slots=True)
class KeyDoc:
    """One key of the file."""

    key: str
    """Dotted, with `<topic>`, `<model>` and `<task>` where a name of the user's stands."""
    type: str
    default: str
    """As written in YAML; `required` where it has no default."""
    description: str


_OWN_NAMES = {"topics": "topic", "models": "model", "tasks": "task", "payload": "name"}
_SHORT_FORMS = {"payload": "mapping or list of strings"}
"""Mappings to sections that may be written shorter, and how."""
_MAX_WORDS = 4
"""Choices that are joined with "or"; more are a list."""
_TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "true or false", SecretStr: "secret", Path: "path"}


def config_keys() -> list[KeyDoc]:
    """Returns every key in the order of the file."""
    return list(_keys(Config, ""))


def config_table() -> str:
    """Returns the keys as a Markdown table."""
    rows = ["| key | type | default | what it does |", "|---|---|---|---|"]
    rows += [
        f"| `{_cell(k.key)}` | {_cell(k.type)} | {_cell(k.default)} | {_cell(k.description)} |" for k in config_keys()
    ]
    return "\n".join(rows) + "\n"


def _keys(section: type[BaseModel], prefix: str) -> Iterator[KeyDoc]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if name == "store":
            yield from _store_keys()
            continue
        inner, is_mapping = _inner_section(field.annotation)
        if inner is None:
            yield KeyDoc(key, _type(field.annotation, field), _default(field), field.description or "")
        elif is_mapping:
            if name in _SHORT_FORMS:
                yield KeyDoc(key, _SHORT_FORMS[name], _default(field), field.description or "")
            yield from _keys(inner, f"{key}.<{_OWN_NAMES[name]}>.")
        else:
            yield from _keys(inner, f"{key}.")


def _store_keys() -> Iterator[KeyDoc]:
    """The keys of every store; the description says whose they are."""
    yield KeyDoc("store.type", " or ".join(STORES), "required", "Which store the other keys here speak of.")
    for kind, store in STORES.items():
        for doc in _keys(store, "store."):
            if doc.key != "store.type":
                yield KeyDoc(doc.key, doc.type, doc.default, f"{kind}: {doc.description}")


def _inner_section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section below a field, and whether it stands under names of the user's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        inner, _ = _inner_section(argument)
        if inner is not None:
            return inner, get_origin(annotation) is dict
    return None, False


def _type(annotation: Any, field: FieldInfo) -> str:
    """The type in a reader's words, with the limits of numbers."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], field)
    if origin is Literal:
        words = [str(argument) for argument in arguments]
        return " or ".join(words) if len(words) <= _MAX_WORDS else ", ".join(words)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type(argument, field) for argument in arguments if argument is not NoneType))
    if origin in {list, tuple}:
        return f"list of {_type(arguments[0], field)}s"
    if origin is dict:
        return "mapping"
    name = _TYPE_NAMES[annotation]
    return f"{name}{_bounds(field)}" if annotation in {int, float} else name


def _bounds(field: FieldInfo) -> str:
    """`, 1 to 65535` from the field's limits; `above` where the limit itself is not allowed."""
    rules = {name: getattr(rule, name) for rule in _rules(field) for name in ("ge", "gt", "le") if hasattr(rule, name)}
    low = f"above {rules['gt']}" if "gt" in rules else (str(rules["ge"]) if "ge" in rules else "")
    if low and "le" in rules:
        return f", {low} to {rules['le']}"
    return f", from {low}" if low else ""


def _rules(field: FieldInfo) -> list[Any]:
    """The field's limits, which pydantic keeps beside the type or, for `X | None`, inside it."""
    inside = [rule for argument in get_args(field.annotation) for rule in getattr(argument, "__metadata__", ())]
    return [*field.metadata, *inside]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "absent"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")
