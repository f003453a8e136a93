"""Writes HTML with everything escaped that is not markup of this package."""

import html
from collections.abc import Iterable

_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "�")


class Markup(str):
    """A piece of finished HTML; every other string is text, and is escaped where it is put in."""

    __slots__ = ()


def tag(name: str, *content: "str | Iterable[str]", **attributes: str | None) -> Markup:
    """Returns an element.

    Args:
        name: Of the element.
        content: Markup, texts, or iterables of both.
        attributes: A trailing underscore is dropped (`class_`); None leaves the attribute out.
    """
    written = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{written}>{_joined(content)}</{name}>")


def fragment(*content: "str | Iterable[str]") -> Markup:
    """Returns pieces one after another."""
    return Markup(_joined(content))


def escape(text: str) -> str:
    """Returns text that no browser takes for markup: in an element or in a quoted attribute.

    Control characters and lone surrogates, which HTML cannot carry, become replacement characters.
    """
    if isinstance(text, Markup):
        return text
    return html.escape(text.translate(_CONTROLS).encode("utf-8", "replace").decode(), quote=True)


def foreign(text: str, limit: int) -> Markup:
    """Returns text of somebody else, cut to so many characters, whose direction does not leak into the page."""
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return tag("bdi", shown, title=text[: 10 * limit] if len(text) > limit else None)


def _joined(content: "Iterable[str | Iterable[str]]") -> str:
    return "".join(escape(piece) if isinstance(piece, str) else _joined(piece) for piece in content)
