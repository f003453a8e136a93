"""Queries of a file."""

import pytest

from pipeline.errors import ConfigError
from pipeline.quality.queries import Query, read_queries

LINE = b'{"query": "no light", "relevant": ["T-1", 7]}'


def test_lines_become_queries() -> None:
    lines = [
        b"\xef\xbb\xbf" + LINE,
        b"",
        b'{"query": "q", "relevant": ["a"], "task": "answers", "instruction": "Find fixes"}',
    ]
    assert read_queries("q.jsonl", lines, ["answers"]) == [
        Query("answers", "no light", ("T-1", "7"), None),
        Query("answers", "q", ("a",), "Find fixes"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[]", "line 2: expected a JSON object"),
        (b"{", "line 2: expected a JSON object"),
        (b'{"query": "q", "relvant": ["a"]}', "unknown field 'relvant'. Did you mean 'relevant'"),
        (b'{"query": " ", "relevant": ["a"]}', "query is missing or blank"),
        (b'{"query": "q", "relevant": []}', "relevant: expected a list of at least one key"),
        (b'{"query": "q", "relevant": [true]}', "relevant: expected a list of at least one key"),
        (b'{"query": "q", "relevant": ["a"], "instruction": 3}', "instruction: expected a text"),
        (b'{"query": "q", "relevant": ["a"], "task": "answer"}', "no retrieval task 'answer'. Did you mean 'answers'"),
    ],
)
def test_wrong_lines_are_named_by_number(line: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=f"q.jsonl.*{words}"):
        read_queries("q.jsonl", [LINE, line], ["answers"])


def test_with_several_tasks_a_line_names_its_own() -> None:
    with pytest.raises(ConfigError, match="task is missing; expected one of answers, docs"):
        read_queries("q.jsonl", [LINE], ["answers", "docs"])


def test_a_file_without_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"q\.jsonl: holds no query"):
        read_queries("q.jsonl", [b"\n"], ["answers"])
