"""The bytes of a file from any place on, decompressed, in blocks and in lines of bounded length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import Reason, RecordError
from pipeline.records.files.filesystems import open_filesystem
from pipeline.records.files.kinds import FileKind

BLOCK_BYTES = 1 << 20
"""Read at once: on an object store each read is a request."""

BOM = b"\xef\xbb\xbf"


@contextmanager
def open_bytes(uri: str, kind: FileKind) -> Iterator[Any]:
    """Opens a file for one pass over its decompressed bytes. Raises pyarrow's errors and OSError."""
    files, path = open_filesystem(uri)
    if kind.compression is not None and not files.get_file_info(path).size:
        raise OSError(f"no bytes, which is not {kind.compression}: is the file cut short?")
    with files.open_input_stream(path, compression=kind.compression) as stream:
        yield stream


def blocks_from(uri: str, kind: FileKind, offset: int) -> Iterator[bytes]:
    """Yields a file's decompressed bytes from an offset on. A compressed file is read over up to there."""
    if kind.compression is None:
        files, path = open_filesystem(uri)
        with files.open_input_file(path) as file:
            file.seek(offset)
            while block := file.read(BLOCK_BYTES):
                yield block
        return
    with open_bytes(uri, kind) as stream:
        while block := stream.read(BLOCK_BYTES):
            if offset < len(block):
                yield block[offset:]
            offset = max(0, offset - len(block))


class Lines:
    """Iterates over lines with their ends (LF, CR LF or CR); a longer one than `max_bytes` comes in pieces."""

    def __init__(self, blocks_at: Callable[[int], Iterator[bytes]], max_bytes: int) -> None:
        """Takes what returns the blocks from an offset on."""
        self._blocks_at = blocks_at
        self._max_bytes = max_bytes
        self.held: Sequence[bytes] = ()
        """Lines in memory. Those from `place` on are still to come; who takes some of them at once moves it."""
        self.place = 0
        self._batches: Iterator[Sequence[bytes]] = iter(())
        self.seek(0)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes:
        if self.place == len(self.held):
            self.held, self.place = next(self._batches), 0
        self.place += 1
        return self.held[self.place - 1]

    def seek(self, offset: int) -> None:
        """Goes on from where a line begins, before or behind this place."""
        self._batches = self._split(self._blocks_at(offset))
        self.held, self.place = (), 0

    def _split(self, blocks: Iterator[bytes]) -> Iterator[Sequence[bytes]]:
        rest = b""
        for block in blocks:
            pieces = (rest + block).splitlines(keepends=True)
            # A CR at the end may be half of a CR LF.
            rest = pieces.pop() if pieces and not pieces[-1].endswith(b"\n") else b""
            cut = len(rest) - rest.endswith(b"\r")
            if cut > self._max_bytes:
                pieces.append(rest[:cut])
                rest = rest[cut:]
            if pieces:
                yield pieces
        if rest:
            yield [rest]


def too_long(max_bytes: int) -> RecordError:
    """Returns the error of a row that is longer than `limits.max_record_bytes`."""
    return RecordError(Reason.RECORD_TOO_LARGE, f"longer than max_record_bytes, {max_bytes}")


def is_whole(line: bytes) -> bool:
    """Whether a piece of `Lines` ends where its line does; of a file's last line that says nothing."""
    return line.endswith((b"\n", b"\r"))
