"""The reference is made from the models, so that no key can be missing from it."""

import re

import orjson

from pipeline.config.describe import KeyDoc, config_keys, config_table
from pipeline.config.explain import STORES
from pipeline.config.pipeline import Config
from pipeline.config.refused import REFUSED_SOURCE_KEYS
from pipeline.config.source import SourceConfig

KEYS = {doc.key: doc for doc in config_keys()}


def test_every_key_says_what_it_does() -> None:
    assert [doc.key for doc in KEYS.values() if len(doc.description.split()) < 2] == []


def test_every_key_appears_once() -> None:
    assert len(KEYS) == len(config_keys())


def test_the_reference_reaches_every_section() -> None:
    schema = orjson.dumps(Config.model_json_schema()).decode()
    names = set(re.findall(r'"([a-z_]+)":\{', schema)) & {doc.key.rsplit(".")[-1] for doc in KEYS.values()}
    assert {"bootstrap_servers", "instruction", "oauth_scope", "batch_points", "max_depth", "namespace"} <= names
    for key in ("source.security.password", "source.topics.<topic>.delete_when.equals", "tasks.<task>.mode"):
        assert key in KEYS
    for name, section in STORES.items():
        for field in section.model_fields:
            assert f"store.{field}" in KEYS, name


def test_knobs_say_what_raising_them_does() -> None:
    """A number an operator may turn, with a default, speaks of raising it or of the limit it is."""
    silent = [
        doc.key
        for doc in KEYS.values()
        if re.match(r"(integer|number), ", doc.type)
        and doc.default != "required"
        and not re.search(r"rais|puts two|port", doc.description, re.IGNORECASE)
    ]
    assert silent == []


def test_a_row_shows_type_limits_and_default() -> None:
    assert KEYS["api.port"].type == "integer, 1 to 65535"
    assert KEYS["api.port"].default == "8000"
    assert KEYS["source.commit_interval_s"].type == "number, above 0 to 60"
    assert KEYS["tasks.<task>.max_tokens"].default == "absent"
    assert KEYS["source.security.password"].type == "secret"
    assert KEYS["store.ca_file"] == KeyDoc(
        "store.ca_file", "path", "absent", "qdrant: PEM file of the authority behind an https url."
    )


def test_the_table_is_markdown_with_four_cells_a_row() -> None:
    lines = config_table().splitlines()
    assert len(lines) == len(KEYS) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines)


def test_no_refused_setting_is_a_valid_key() -> None:
    assert REFUSED_SOURCE_KEYS.keys() & SourceConfig.model_fields.keys() == set()
