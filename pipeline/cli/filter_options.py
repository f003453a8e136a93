"""`--filter` on the command line: `field=value` and its kin, read by the types of the task's stored fields."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.config.payload_fields import PayloadField
from pipeline.errors import ConfigError
from pipeline.records.characters import is_text

FILTER_HELP = (
    "Only hits with this payload; may be repeated. field=value (repeated: any of the values), field>=value (also >, <, "
    "<=; numbers and times), field~words (all of them occur; text fields), field=null, field!=null."
)

_OPERATION = re.compile(r"(>=|<=|!=|=|>|<|~)(.*)", re.DOTALL)
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_WORDS = frozenset({"keyword", "uuid", "datetime", "text"})
"""Kinds whose values are texts, whatever they look like."""


def parse_filter_options(options: list[str], fields: Mapping[str, PayloadField]) -> dict[str, Any]:
    """Returns what the API takes. A value in double quotes is a text, and `"null"` is not null.

    Raises ConfigError, naming the option, for one that cannot be read.
    """
    wanted: dict[str, Any] = {}
    for option in options:
        if not is_text(option):
            raise ConfigError(f"--filter {option!r}: not UTF-8")
        field, operator, text = _split(option, fields)
        asked = _asked(option, operator, text, fields.get(field))
        _add(wanted, field, asked, option)
    return {name: asked[0] if isinstance(asked, list) and len(asked) == 1 else asked for name, asked in wanted.items()}


def _split(option: str, fields: Mapping[str, PayloadField]) -> tuple[str, str, str]:
    """Returns field, operator and value; a field's own name may hold an operator."""
    for name in sorted(fields, key=len, reverse=True):
        if option.startswith(name) and (found := _OPERATION.fullmatch(option[len(name) :])):
            return name, found[1], found[2]
    found = _OPERATION.search(option)
    if found is None or not found.start():
        raise ConfigError(f"--filter {option!r}: expected field=value, field>=value, field~words or field=null")
    return option[: found.start()], found[1], found[2]


def _asked(option: str, operator: str, text: str, field: PayloadField | None) -> Any:
    """Returns a list of one value, or a mapping."""
    if text == "null" and operator in {"=", "!="}:
        return {"is_null": operator == "="}
    if operator == "!=":
        raise ConfigError(f"--filter {option!r}: != is for null only")
    if operator == "~":
        return {"text": _unquoted(text)}
    value = _unquoted(text) if field is not None and field.kind in _WORDS else _scalar(text)
    return [value] if operator == "=" else {_BOUNDS[operator]: value}


def _add(wanted: dict[str, Any], field: str, asked: Any, option: str) -> None:
    """Joins what is asked of one field: values to any of them, bounds to a range."""
    before = wanted.setdefault(field, asked)
    if before is asked:
        return
    if isinstance(before, list) and isinstance(asked, list):
        before += asked
    elif isinstance(before, dict) and isinstance(asked, dict) and {*before, *asked} <= set(_BOUNDS.values()):
        before.update(asked)
    else:
        raise ConfigError(f"--filter {option!r}: does not go together with the other filter on {field!r}")


def _unquoted(text: str) -> str:
    value = _scalar(text)
    return value if isinstance(value, str) else text


def _scalar(text: str) -> str | int | float | bool:
    import orjson

    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return parsed if isinstance(parsed, str | int | float | bool) else text
