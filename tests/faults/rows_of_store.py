"""Rows of the fault table about store, embedders, dead letters, backfill and API: all that are not of the source."""

from tests.faults.row import Row

ROWS: tuple[Row, ...] = ()
