"""Values of JSON Lines and of JSON arrays, as the bytes they are; none is held that is longer than a record may be.

Whether a value is an object, and which, is for whoever parses it. An array is split by its brackets and strings
alone, so that a value that is not JSON costs itself only.
"""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import Reason, RecordError
from pipeline.records.files.reading import FileFault, Row
from pipeline.records.files.streams import BOM, Lines, is_whole, too_long

_BETWEEN = re.compile(rb"[\s,]*")
_SCALAR = re.compile(rb"[^\s,\[\]{\"]*")
_OUTSIDE = re.compile(
    rb'(?:[^"{}\[\]]*+"[^"\\\r\n]*+(?:\\.[^"\\\r\n]*+)*+")*+[^"{}\[\]]*+(["{}\[\]])',
    re.DOTALL,
)
"""The next bracket, or the quote of a string that does not end here; whole strings are read over."""
_INSIDE = re.compile(rb'["\\\r\n]')
_CLOSING = {b"{": b"}", b"[": b"]"}
_INDENT = re.compile(rb"[\s,\[]*")
_OBJECT = re.compile(rb"[\s,]*(?=\{)")

_SKIPPED_BYTES = 1 << 14
"""Held of a line that is skipped."""

_DEEPEST = 1_000
"""Open brackets at which a value is given up: more than `limits.max_depth` may be."""


def read_lines(file: Any, begin: int, end: int | None, max_bytes: int) -> Iterator[Row]:
    """Yields the lines that begin in a range of bytes, blank ones left out; the last one may end behind the range.

    A line's place is its number, within a file its first byte.

    Args:
        file: A buffered file that stands at the byte before `begin`, or at 0.
        begin: First byte of the range.
        end: One past its last byte; None: the end of the file.
        max_bytes: Of a longer line no more is ever held: what calls itself JSON Lines may be one array.
    """
    longest = max_bytes + len(b"\r\n")
    end = sys.maxsize if end is None else end
    place, number = max(begin - 1, 0), 0
    if begin:
        place += _skip_line(file, end - place)
    while place < end and (line := file.readline(longest)):
        begins, place, number = place, place + len(line), number + 1
        at = ("byte", begins) if begin else ("line", number)
        if len(line) == longest and not line.endswith(b"\n"):
            place += _skip_line(file, end - place)
            yield Row(at, error=too_long(max_bytes))
        elif text := line.strip() if begins else line.removeprefix(BOM).strip():
            yield Row(at, len(text), None, text)


def _skip_line(file: Any, most: int) -> int:
    """Moves behind the line, or by `most` bytes or more: no line of the range begins there. Returns how far."""
    skipped = 0
    while skipped < most and (part := file.readline(_SKIPPED_BYTES)):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


class _BrokenError(Exception):
    """A value's brackets or strings are not closed as JSON closes them."""


class _Nesting:
    """Follows a value through blocks: which brackets are open, and whether a string is."""

    def __init__(self) -> None:
        self._closing: list[bytes] = []
        self._in_string = False
        self._escaped = False

    def end(self, block: bytes, place: int) -> int | None:
        """Returns where the value ends, which goes on at `place`; None where it is not in this block."""
        if not self._closing and not self._in_string:
            self._take(block[place : place + 1])
            place += 1
        if self._escaped and place < len(block):
            place, self._escaped = place + 1, False
        while True:
            found = _INSIDE.search(block, place) if self._in_string else _OUTSIDE.match(block, place)
            if found is None:
                return None
            sign, place = found[found.lastindex or 0], found.end()
            if sign == b"\\":
                self._escaped = place == len(block)
                place += 1
                continue
            self._take(sign)
            if not self._closing and not self._in_string:
                return place

    def _take(self, sign: bytes) -> None:
        if sign == b'"':
            self._in_string = not self._in_string
        elif self._in_string:
            raise _BrokenError("a string is not closed on its line")
        elif sign in _CLOSING:
            self._closing.append(_CLOSING[sign])
            if len(self._closing) > _DEEPEST:
                raise _BrokenError(f"more than {_DEEPEST:,} brackets are open")
        elif self._closing.pop() != sign:
            raise _BrokenError("brackets do not match")


class JsonArray:
    """Iterates over the values of a JSON array, or of objects one after another.

    A value whose brackets or strings are not closed is rejected, and reading goes on with the next line that begins
    with an object and is indented no deeper than the line of that value. Raises FileFault, behind the last value, where
    there is no such line, and where the array is not closed.
    """

    def __init__(self, blocks_at: Callable[[int], Iterator[bytes]], max_bytes: int) -> None:
        """Takes what returns the file's blocks from an offset on."""
        self._blocks_at = blocks_at
        self._max_bytes = max_bytes
        self._in_array = False
        self._fault = ""
        self._block = b""
        self._place = self._base = self._line_begins = 0
        self._line = 1
        self._seek(0, 1)
        while len(self._block) < len(BOM) and (more := next(self._blocks, b"")):
            self._block += more
        self._place = len(BOM) if self._block.startswith(BOM) else 0

    def __iter__(self) -> Iterator[Row]:
        while (sign := self._next_sign()) is not None:
            if sign in {b"[", b"]"} and self._in_array == (sign == b"]"):
                self._in_array = not self._in_array
                self._move(self._place + 1)
                continue
            line, begins = self._line, self._line_begins
            at = "line", line
            try:
                text = self._value(sign)
            except _BrokenError as error:
                self._resume(begins, line)
                yield Row(at, error=RecordError(Reason.INVALID_JSON, str(error)))
            else:
                yield Row(at, error=too_long(self._max_bytes)) if text is None else Row(at, len(text), None, text)
            if self._fault:
                raise FileFault(self._fault)
        if self._in_array:
            raise FileFault("its array is not closed; is the file cut short?")

    def _value(self, sign: bytes) -> bytes | None:
        """Reads over a value; None for one that is too long. Raises _BrokenError where it never ends."""
        nesting = _Nesting() if sign in {b"{", b"[", b'"'} else None
        pieces: list[bytes] = []
        num_bytes = 0
        while True:
            if nesting is not None:
                end = nesting.end(self._block, self._place)
            else:
                end = self._end_of_scalar(is_first=not pieces)
            piece = self._block[self._place : end]
            num_bytes += len(piece)
            if num_bytes <= self._max_bytes:
                pieces.append(piece)
            self._move(len(self._block) if end is None else end)
            if end is not None or (not self._fill() and nesting is None):
                return b"".join(pieces) if num_bytes <= self._max_bytes else None
            if not self._block:
                raise _BrokenError("it is not closed")

    def _end_of_scalar(self, *, is_first: bool) -> int | None:
        found = _SCALAR.match(self._block, self._place + is_first)
        end = found.end() if found else len(self._block)
        return end if end < len(self._block) else None

    def _resume(self, begins: int, line: int) -> None:
        """Goes to the next object behind a broken value, by the offset and the number of that value's line."""
        lines = Lines(self._blocks_at, self._max_bytes)
        lines.seek(begins)
        first = next(lines)
        indent = len(_INDENT.match(first.removeprefix(BOM))[0])  # type: ignore[index]  # it matches anything
        place, number, is_start = begins + len(first), line + first.count(b"\n"), is_whole(first)
        for piece in lines:
            found = _OBJECT.match(piece) if is_start else None
            if found is not None and found.end() <= indent:
                self._seek(place, number)
                return
            place, number, is_start = place + len(piece), number + piece.count(b"\n"), is_whole(piece)
        self._fault = f"nothing behind line {line} can be read"

    def _next_sign(self) -> bytes | None:
        """Goes to the next value or bracket; returns its first byte, None at the end of the file."""
        while True:
            found = _BETWEEN.match(self._block, self._place)
            self._move(found.end() if found else self._place)
            if self._place < len(self._block):
                return self._block[self._place : self._place + 1]
            if not self._fill():
                return None

    def _fill(self) -> bool:
        """Takes the next block, once all of this one is read; whether there is one."""
        self._base += len(self._block)
        self._block, self._place = next(self._blocks, b""), 0
        return bool(self._block)

    def _move(self, to: int) -> None:
        """Goes to a place in the block, and counts the lines up to there."""
        if num_lines := self._block.count(b"\n", self._place, to):
            self._line += num_lines
            self._line_begins = self._base + self._block.rfind(b"\n", self._place, to) + 1
        self._place = to

    def _seek(self, offset: int, line: int) -> None:
        """Goes to the beginning of a line."""
        self._blocks = self._blocks_at(offset)
        self._block, self._place, self._base = next(self._blocks, b""), 0, offset
        self._line, self._line_begins = line, offset
