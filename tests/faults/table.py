"""The whole fault table, by row."""

from tests.faults import rows_of_source, rows_of_store
from tests.faults.row import Row

NUM_ROWS = 52


def rows() -> list[Row]:
    """Returns every row, in order."""
    return sorted([*rows_of_source.ROWS, *rows_of_store.ROWS], key=lambda row: row.number)
