"""Rows of CSV and TSV files, so that a bad row costs that row and not the file.

Python's `csv` parses; here is what it does not do: rows have a bounded size, a ragged row, invalid
UTF-8 and broken quotes cost one row each, and a quote that is never closed swallows nothing. Where a
quoted field turns out broken, its row is rejected up to the end of the line on which the row begins,
and reading goes on with the next line.

Ordinary rows are parsed many at once from the lines in memory; a row that is odd in any way is parsed
again by itself, with all of that care.
"""

import csv
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import Reason, RecordError
from pipeline.records.files.reading import FileFault
from pipeline.records.files.streams import BOM, Lines, is_whole, too_long

_LOOKED_AT = 100
"""Lines that are looked at to tell an unclosed quote from a long text."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

_END = "unexpected end of data"
"""How the parser says that quotes are open at the end of a file."""


@dataclass(slots=True)
class CsvRow:
    """One row behind the header; blank lines are no rows."""

    line: int
    """Number of its first line in the file, from 1."""
    values: Sequence[str] | RecordError
    """As many as the header has. Bytes that are not UTF-8 are surrogates, see `is_broken`."""
    num_bytes: int
    is_broken: bool = False
    """Whether some value is not UTF-8."""


class _TooLongError(Exception):
    """A row is longer than allowed so far."""


class CsvTable:
    """Iterates over the rows of a CSV or TSV file; the header is read at once."""

    def __init__(self, lines: Lines, delimiter: str, max_bytes: int) -> None:
        """Takes the lines and the largest size of a row. Raises FileFault where the header cannot be read."""
        csv.field_size_limit(sys.maxsize)  # of the whole process; the feed has the bound
        self._feed = _Feed(lines, max_bytes)
        self._max_bytes = max_bytes
        self._delimiter = delimiter
        self._reader = csv.reader(self._feed, delimiter=delimiter, strict=True)
        self.names: Sequence[str] = self._header()
        """Empty for a file without a line."""

    def __iter__(self) -> Iterator[CsvRow]:
        while True:
            yield from self._ordinary_rows()
            try:
                row = self._row()
            except StopIteration:
                return
            if row is not None:
                yield row

    def _ordinary_rows(self) -> Iterator[CsvRow]:
        """Yields the rows up to the first that is not ordinary, or whose lines are not all in memory.

        What is not ordinary is left to `_row`, from the first line of that row on.
        """
        feed, width, max_bytes = self._feed, len(self.names), self._max_bytes
        lines, first = feed.ahead()
        line = feed.next_line - first
        # Without a copy of the lines: there may be as many calls as there are bad rows.
        texts = map(bytes.decode, map(lines.__getitem__, range(first, len(lines))))
        reader = csv.reader(texts, delimiter=self._delimiter, strict=True)
        begin = first
        try:
            for values in reader:
                end = first + reader.line_num
                num_bytes = len(lines[begin]) if end == begin + 1 else sum(map(len, lines[begin:end]))
                if num_bytes > max_bytes or (len(values) != width and values):
                    break
                if values:
                    yield CsvRow(line + begin, values, num_bytes)
                begin = end
        except (csv.Error, UnicodeDecodeError):
            pass
        feed.skip(begin - first)

    def _row(self) -> CsvRow | None:
        """Returns the next row, None for a blank line. Raises StopIteration behind the last."""
        feed = self._feed
        feed.begin()
        try:
            values = next(self._reader)
        except _TooLongError:
            error = self._long_row()
        except csv.Error as fault:
            error = self._malformed(str(fault))
        else:
            if len(values) == len(self.names):
                return CsvRow(feed.line, values, feed.num_bytes, feed.is_broken)
            if not values:
                return None
            error = self._ragged(len(values))
        return CsvRow(feed.line, error, feed.num_bytes)

    def _header(self) -> Sequence[str]:
        names: Sequence[str] = ()
        while not names:
            self._feed.begin()
            try:
                names = next(self._reader)
            except StopIteration:
                return ()
            except _TooLongError:
                raise FileFault(f"the header is longer than max_record_bytes, {self._max_bytes}") from None
            except csv.Error as fault:
                raise FileFault(f"the header is not CSV ({fault})") from None
        if self._feed.is_broken:
            found = "UTF-16" if self._feed.held[0].startswith(_UTF_16) else "not UTF-8"
            raise FileFault(f"the header is {found}; save the file as UTF-8")
        return names

    def _malformed(self, words: str) -> RecordError:
        """Rejects a row whose quotes break CSV's rules."""
        feed = self._feed
        if len(feed.held) == 1:
            return _refusal("a quoted field is never closed" if words == _END else words)
        last = feed.line + len(feed.held) - 1
        feed.keep_first()
        return _refusal(f"a quoted field is not closed ({words}, line {last})")

    def _ragged(self, width: int) -> RecordError:
        feed = self._feed
        lines = "" if len(feed.held) == 1 else f" up to line {feed.line + len(feed.held) - 1}"
        return _refusal(f"{width} fields{lines}, the header has {len(self.names)}")

    def _long_row(self) -> RecordError:
        """Goes to the end of a row without holding it; where its quotes are broken, to the end of its first line."""
        feed, quotes = self._feed, _Quotes(self._delimiter)
        held, num_first = feed.held, 0
        broken = self._stand_alone(held[1:-1])  # the last one may be a piece, by where a block ends
        ended = first_ended = False
        pieces = feed.rest()
        for piece in pieces:
            if not first_ended:
                num_first += len(piece)
                first_ended = is_whole(piece)
            try:
                ended = not broken and quotes.end_row(piece)
            except csv.Error:
                broken = True
            if ended or (broken and first_ended):
                break
        if ended or not (broken or quotes.are_open):
            return too_long(self._max_bytes)
        feed.seek_second(num_first)
        return _refusal("a quoted field is not closed")

    def _stand_alone(self, lines: Sequence[bytes]) -> bool:
        """Whether lines within the quotes of one row are whole rows each: then a quote before them is not closed."""
        if not lines or len(self.names) == 1:
            return False
        for line in lines[:_LOOKED_AT]:
            try:
                row = next(csv.reader([line.decode(errors="replace")], delimiter=self._delimiter, strict=True), [])
            except csv.Error:
                return False
            if len(row) != len(self.names) or line.count(b'"') % 2:
                return False
        return True


class _Feed:
    """What the parser reads from: lines as text, held until their row is complete, so that they can be read again."""

    def __init__(self, lines: Lines, max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._again: deque[bytes] = deque()
        self.next_line = 1
        """Number of the line that comes next."""
        self._place = 0
        self.begin()

    def ahead(self) -> tuple[Sequence[bytes], int]:
        """Returns lines in memory, and the place among them of the next one; none where some are to be read again."""
        return ((), 0) if self._again else (self._lines.held, self._lines.place)

    def skip(self, number: int) -> None:
        """Goes over some of the lines that `ahead` returned."""
        if not number:
            return
        lines, place = self._lines.held, self._lines.place
        self._place += sum(map(len, lines[place : place + number]))
        self.next_line += number - (not is_whole(lines[place + number - 1]))
        self._lines.place += number

    def begin(self) -> None:
        """Begins a row with the next line."""
        self.line = self.next_line
        self._begins = self._place
        self.held: list[bytes] = []
        self.num_bytes = 0
        self.is_broken = False

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        piece = self._piece()
        self.held.append(piece)
        self.num_bytes += len(piece)
        if self.num_bytes > self._max_bytes:
            raise _TooLongError
        if self._place == len(piece):
            piece = piece.removeprefix(BOM)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            self.is_broken = True
            return piece.decode(errors="surrogateescape")

    def keep_first(self) -> None:
        """Gives all lines of the row back but the first, to be read again."""
        lines = self.held[1:]
        self._again.extendleft(reversed(lines))
        self._place -= sum(map(len, lines))
        self.next_line = self.line + 1

    def rest(self) -> Iterator[bytes]:
        """Yields the row's lines and all that follow, in pieces that are not held."""
        yield from self.held
        while True:
            try:
                yield self._piece()
            except StopIteration:
                return

    def seek_second(self, num_first: int) -> None:
        """Goes on with the row's second line; the first one has so many bytes."""
        self._again.clear()
        self._place = self._begins + num_first
        self._lines.seek(self._place)
        self.next_line = self.line + 1

    def _piece(self) -> bytes:
        piece = self._again.popleft() if self._again else next(self._lines)
        self._place += len(piece)
        self.next_line += is_whole(piece)
        return piece


class _State(Enum):
    START = "at the start of a field"
    PLAIN = "within a field without quotes"
    QUOTED = "within quotes"
    CLOSED = "behind a quote that closes, or is the first of two"


class _Quotes:
    """Follows the quotes of a row through its pieces, by the parser's rules."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter.encode()
        self._ends = re.compile(b"[" + re.escape(self._delimiter) + b"\r\n]")
        self._state = _State.START

    @property
    def are_open(self) -> bool:
        """Whether what follows is within quotes."""
        return self._state is _State.QUOTED

    def end_row(self, piece: bytes) -> bool:
        """Whether the row ends with this piece. Raises csv.Error where a field goes on behind its closing quote."""
        place = 0
        while 0 <= place < len(piece):
            if self._state is _State.QUOTED:
                place = piece.find(b'"', place) + 1 or len(piece)
                if piece[place - 1 : place] == b'"':
                    self._state = _State.CLOSED
                continue
            if self._state is _State.PLAIN:
                found = self._ends.search(piece, place)
                place = found.start() if found else len(piece)
            sign = piece[place : place + 1]
            if sign in {b"\r", b"\n"}:
                return True
            place += self._step(sign)
        return False

    def _step(self, sign: bytes) -> int:
        """Takes one byte outside of quotes; returns how many are done with."""
        if sign == self._delimiter:
            self._state = _State.START
        elif sign == b'"':
            self._state = _State.QUOTED
        elif self._state is _State.CLOSED:
            raise csv.Error("a field goes on behind its closing quote")
        else:
            self._state = _State.PLAIN
        return 1


def _refusal(words: str) -> RecordError:
    return RecordError(Reason.INVALID_ROW, words)
