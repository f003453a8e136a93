"""What is fuzzed: a function of bytes that ends quietly, whatever the bytes are, unless something is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEPARATOR = b"\xff\x00"
"""Between the parts of an input; neither JSON, CSV nor a name in UTF-8 has it."""


@dataclass(frozen=True)
class Target:
    """One reader under test."""

    check: Callable[[bytes], None]
    """Raises nothing: errors of the project's own are what bad input may cost, anything else is a finding."""
    seeds: Sequence[bytes]
    """Inputs to begin with."""
    max_bytes: int = 2_048


def joined(*parts: bytes) -> bytes:
    """Returns an input of several parts."""
    return SEPARATOR.join(parts)


def parts_of(data: bytes, count: int) -> list[bytes]:
    """Returns so many parts of an input; those that it lacks are empty."""
    found = data.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def choice(data: bytes) -> tuple[int, bytes]:
    """Returns the number that an input begins with, and the rest."""
    return (data[0], data[1:]) if data else (0, b"")
