"""Backfill: files of records through the same engine and guard as live traffic, resumable by fragment."""
