"""What is stored beside a vector: which field of the record, of which type, and how the store indexes it."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from pipeline.config.base import FieldPath, Section
from pipeline.config.paths import flat_name
from pipeline.errors import nearest

PayloadKind = Literal["keyword", "uuid", "integer", "float", "bool", "datetime", "text"]
"""One value of a typed field; each has an index of its own kind."""

PayloadType = Literal[
    PayloadKind, "keyword[]", "uuid[]", "integer[]", "float[]", "bool[]", "datetime[]", "text[]"
]  # fmt: skip
"""A kind, or a list of values of that kind."""

KINDS: tuple[PayloadKind, ...] = get_args(PayloadKind)
TYPES: tuple[PayloadType, ...] = get_args(PayloadType)

_TENANT_KINDS = ("keyword", "uuid")


class PayloadField(Section):
    """One stored field."""

    path: FieldPath | None = Field(None, description="Path of the field in the record. Absent: the stored name.")
    type: PayloadType | None = Field(None, description="What its values are. Absent: anything, matched as text.")
    tenant: bool = Field(
        False, description="Nearly every search filters on this field: the server groups points by it."
    )
    on_disk: bool = Field(False, description="Keeps the index of this field on the server's disk.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tenant and self.kind not in _TENANT_KINDS:
            raise ValueError(f"tenant needs type {' or '.join(_TENANT_KINDS)}")
        return self

    @property
    def kind(self) -> PayloadKind | None:
        """The kind of one value; None for an untyped field."""
        return None if self.type is None else self.type.removesuffix("[]")  # type: ignore[return-value]  # a kind

    @property
    def is_list(self) -> bool:
        """Whether the field holds a list of such values."""
        return self.type is not None and self.type.endswith("[]")

    @property
    def index(self) -> tuple[PayloadKind | None, bool, bool]:
        """What decides the field's index: kind, tenant, on_disk."""
        return self.kind, self.tenant, self.on_disk


def is_stored_name(name: str) -> bool:
    """Whether a store can name a payload field so: Qdrant's paths have no spelling for quotes and backslashes."""
    return bool(name) and '"' not in name and "\\" not in name


def long_forms(value: Any) -> Any:
    """Returns the short forms of `payload` as the long one: a list of paths, and a path or a type for a field.

    A bare word that is a type is a type: a record's own field of that name is written `{path: text}`. Anything
    else is returned as it is, for the models to refuse.
    """
    if isinstance(value, list) and all(isinstance(path, str) for path in value):
        return {flat_name(path): {"path": path} for path in value}
    if isinstance(value, dict):
        return {name: _long_form(name, field) for name, field in value.items()}
    return value


def _long_form(name: Any, field: Any) -> Any:
    if isinstance(field, str):
        return {"path": name, "type": field} if field in TYPES else {"path": _not_a_misspelt_type(field)}
    if isinstance(field, dict) and "path" not in field:
        return {"path": name, **field}
    return field


def _not_a_misspelt_type(path: str) -> str:
    if path.endswith("[]"):
        raise ValueError(f"{path!r} is not a type; types are {', '.join(TYPES)}.{nearest(path, TYPES)}")
    return path
