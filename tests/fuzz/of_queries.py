"""Filters, from the API and from the command line: conditions that both stores take, or a `ConfigError`."""

import json
from typing import Any

from pipeline.cli.filter_options import parse_filter_options
from pipeline.config.payload_fields import TYPES, PayloadField
from pipeline.config.yaml_loader import load_yaml
from pipeline.errors import ConfigError
from pipeline.filters import parse_filters
from pipeline.stores import edge_filters, qdrant_filters
from tests.fuzz.target import Target

FIELDS = {
    "untyped": PayloadField(),
    "a.b": PayloadField(),
    **{str(kind): PayloadField(type=kind) for kind in TYPES},
}


def asked(filters: dict[str, Any]) -> None:
    """Says the filters to both stores."""
    conditions = parse_filters(filters, FIELDS)
    assert len(conditions) == len(filters)
    qdrant_filters.live(conditions).SerializeToString()
    edge_filters.live(conditions)
    for condition in conditions:
        qdrant_filters.needed_kinds(condition)


def check_filter(data: bytes) -> None:
    """The JSON of a request, as leniently as Python reads it; each of its values is asked of each type as well."""
    try:
        filters = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(filters, dict):
        filters = {"untyped": filters}
    wanted = [filters, *({name: value} for value in list(filters.values())[:8] for name in FIELDS)]
    for each in wanted:
        try:
            asked(each)
        except ConfigError as error:
            str(error).encode()


def check_option(data: bytes) -> None:
    """Arguments of the command line, one a line, which may hold bytes that are not UTF-8."""
    options = data.decode(errors="surrogateescape").split("\n")
    try:
        filters = parse_filter_options(options, FIELDS)
        json.dumps(filters, ensure_ascii=False, allow_nan=False).encode()  # as the client sends them
        asked(filters)
    except ConfigError as error:
        str(error).encode(errors="replace")


def check_yaml(data: bytes) -> None:
    """The text of a configuration file."""
    try:
        load_yaml(data.decode(errors="replace"))
    except ConfigError as error:
        str(error).encode(errors="replace")


FILTERS = Target(
    check_filter,
    [
        b'{"integer": 7, "keyword": ["a", "b"], "bool": true}',
        b'{"float": {"gt": 1.5, "lte": 1e308}, "integer": {"gte": -9223372036854775808}}',
        b'{"datetime": {"gte": "2026-01-31", "lt": "9999-12-31T23:59:59-12:00"}}',
        b'{"text": {"text": "words"}, "uuid": "00000000-0000-0000-0000-000000000000", "a.b": {"is_null": false}}',
        b'{"untyped": [1, true], "": 1, "a\\"b": 2, "keyword": "\\ud800"}',
        b'{"float": 1' + b"0" * 400 + b', "integer": NaN}',
    ],
)
OPTIONS = Target(
    check_option,
    [
        b"integer=7\ninteger=8", b"float>=1.5\nfloat<2", b"text~some words", b"keyword=null\nbool!=null",
        b'untyped="null"', b"datetime>2026-01-31", b"a.b=true", b"keyword=caf\xe9", b"keyword!=x", b"=",
        b"integer=" + b"9" * 400,
    ],
)  # fmt: skip
YAML = Target(
    check_yaml,
    [
        b"pipeline: a\nsource: {topics: {t: {text: '{x}'}}}\n", b"a: " + b"9" * 4_400,
        b"a: 0x" + b"f" * 400, b"a: 1e400\n",
        b"a: [1, -0o17, 1_000, .inf, .nan, ~]\n", b"? [a]\n: b\n", b"a: !!binary aGk=\n", b"a: &x [*x]\n",
        b"<<: {a: 1}\n",
        b"a: 2026-01-01\n", b"a: !!set {x}\n", b"a: |\n  text\n", b"a: 1:30\n", b"a: =\n",
    ],
)  # fmt: skip
