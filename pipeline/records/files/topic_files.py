"""The files of some inputs as records of one topic, in order: what is sent, compared, shown and scored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipeline.config.paths import split_path, top_names
from pipeline.config.pipeline import LimitsConfig
from pipeline.config.source import TopicConfig
from pipeline.errors import RecordError
from pipeline.records.files.listing import list_files
from pipeline.records.files.messages import Keys, fields_of
from pipeline.records.files.reader import read_rows
from pipeline.records.files.reading import FileFault, Reading, Row, reading_of
from pipeline.records.files.row_counts import RowCounts, count_rows
from pipeline.records.files.schema import check_columns
from pipeline.records.values import MISSING, field_at


class TopicFiles:
    """Files whose rows become records of a topic."""

    def __init__(
        self, inputs: Sequence[str], topic: TopicConfig, limits: LimitsConfig, keys: Keys, *, all_columns: bool = False
    ) -> None:
        """Lists the files and checks their columns.

        Args:
            inputs: Files, folders and globs.
            topic: By whose rules they are read.
            limits: The pipeline's.
            keys: Where message keys come from.
            all_columns: Whether rows have every column of their file, not only those that the topic reads.

        Raises ConfigError and EnvironmentFault like `list_files` and `check_columns`.
        """
        self.listing = list_files(inputs)
        extra = [] if keys.row_number is None else [keys.row_number]
        check_columns(self.listing.parts, topic, extra, () if keys.field == topic.key else keys.paths)
        self._reading = reading_of(topic, limits, all_columns=all_columns, also=keys.paths)

    def count(self) -> RowCounts:
        """Returns how many rows there are, or about how many."""
        return count_rows(self.listing.parts)

    def rows(self, on_fault: Callable[[FileFault], None] | None = None) -> Iterator[tuple[int, str, Row]]:
        """Yields all rows, each with its number and the address of its file.

        Numbers go through all files, from 1. Blank lines are no rows; bad rows count.

        A file that cannot be read to its end is told to `on_fault`; without that, raises FileFault.
        """
        number = 0
        for part in self.listing.parts:
            file = part.uri
            try:
                for row in read_rows(part, self._reading):
                    number += 1
                    yield number, file, row
            except FileFault as fault:
                if on_fault is None:
                    raise
                on_fault(fault)


def first_value(given: str, path: str) -> Any:
    """Returns the first value of a field that is not null in some files; None where no row has one.

    Raises ConfigError and EnvironmentFault like `list_files`, FileFault like `read_rows`.
    """
    limits = LimitsConfig()
    reading = Reading(frozenset(top_names(path)), {}, limits.max_record_bytes, limits.max_depth)
    names = split_path(path)
    for part in list_files([given]).parts:
        for row in read_rows(part, reading):
            with suppress(RecordError):
                value = field_at(fields_of(row, limits.max_depth), names)
                if value is not MISSING and value is not None:
                    return value
    return None
