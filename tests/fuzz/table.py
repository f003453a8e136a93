"""All targets by name, and what was once found in each."""

from collections.abc import Mapping
from pathlib import Path

from tests.fuzz import of_files, of_headers, of_queries, of_records, of_schemas
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    "values": of_records.VALUES,
    "versions": of_records.VERSIONS,
    "paths": of_records.PATHS,
    "schemas": of_schemas.SCHEMA_RECORDS,
    "csv": of_files.CSV,
    "json_array": of_files.JSON_ARRAY,
    "json_lines": of_files.JSON_LINES,
    "inputs": of_files.INPUTS,
    "headers": of_headers.HEADERS,
    "letters": of_headers.LETTERS,
    "offsets": of_headers.OFFSETS,
    "filters": of_queries.FILTERS,
    "options": of_queries.OPTIONS,
    "yaml": of_queries.YAML,
}

FINDINGS = Path(__file__).parent / "findings"
"""Folders by target: each file is an input that failed once, and is tried by tests/unit/test_fuzz.py ever since."""


def findings_of(name: str) -> list[bytes]:
    """Returns the inputs that failed once."""
    return [path.read_bytes() for path in sorted((FINDINGS / name).glob("*"))]
