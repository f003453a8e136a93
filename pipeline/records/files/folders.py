"""The fields that the folders of a file give to each of its rows, as Hive and Spark write partitions."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.errors import RecordError
from pipeline.records.files.columns import num_constant_bytes
from pipeline.records.files.reading import Reading
from pipeline.records.meaning import value_of

_NULL = "__HIVE_DEFAULT_PARTITION__"
"""How they spell the folder of rows whose partition value is null."""


def hive_columns(uri: str) -> Mapping[str, str | None]:
    """Returns the `name=value` folders of a path; the folder of null is None."""
    parts = (part.partition("=") for part in PurePosixPath(uri).parts[:-1] if "=" in part)
    return {name: None if value == _NULL else unquote(value) for name, _, value in parts}


class FolderFields:
    """What the folders of a file say of its rows, as the topic reads them."""

    def __init__(self, uri: str, reading: Reading) -> None:
        """Reads the folders' names; one whose value means nothing makes every row bad."""
        self.fields: dict[str, Any] = {}
        self.error: RecordError | None = None
        """Of every row, where a folder's value means nothing."""
        for name, text in hive_columns(uri).items():
            if not reading.keeps(name):
                continue
            expected = reading.expected.get(name)
            try:
                self.fields[name] = text if text is None or expected is None else value_of(text, expected)
            except RecordError as error:
                self.error = RecordError(error.reason, f"folder {name!r}: {error.detail}")
        self.num_bytes = num_constant_bytes(self.fields)

    def __bool__(self) -> bool:
        return bool(self.fields) or self.error is not None

    def beside(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns a row's fields with those that it lacks. Raises RecordError where a folder's is bad."""
        if self.error is not None:
            raise self.error
        return {**self.fields, **fields}
