"""What a purge asks the brokers: which points committed offsets name, and how long delete markers are kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from pipeline.errors import EnvironmentFault
from pipeline.records.record import Witness
from pipeline.sources.client import admin
from pipeline.sources.group import witnesses
from pipeline.sources.group.positions import Mark
from tests.config_trees import parsed

CONFIG = parsed().source
WITNESS = Witness(bytes(range(16)), 7, frozenset({"0a1b2c3d"}))


class FakeAdmin:
    """A cluster with one topic of three partitions."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        return [{"name": topic, "error_code": 0, "partitions": [{}, {}, {}]} for topic in topics]

    def list_group_offsets(self, asked: Mapping[str, list[TopicPartition]]) -> Mapping[str, Mapping[Any, Any]]:
        first, second, _ = asked[CONFIG.group_id]
        named = Mark("id", 3, 3, 0).dump(WITNESS)
        return {CONFIG.group_id: {first: OffsetAndMetadata(5, named, -1), second: OffsetAndMetadata(5, "other", -1)}}

    def describe_configs(self, resources: list[Any], *, config_filter: str) -> Mapping[str, Any]:
        assert config_filter == "all"
        found = {name: {"value": value} for name, value in self._settings.items()}
        return {"topic": {resource.name: found for resource in resources}}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {"delete.retention.ms": "86400000"}

    @contextmanager
    def open_admin(_config: object, _doing: str) -> Iterator[FakeAdmin]:
        yield FakeAdmin(found)

    monkeypatch.setattr(admin, "open_admin", open_admin)
    monkeypatch.setattr(witnesses, "open_admin", open_admin)
    return found


@pytest.mark.usefixtures("settings")
def test_the_points_that_committed_offsets_name_are_found() -> None:
    assert witnesses.committed_witnesses(CONFIG) == {WITNESS.id}


def test_the_time_that_delete_markers_are_kept_is_found(settings: dict[str, str]) -> None:
    assert admin.delete_retention_ms(CONFIG) == {"tickets": 86_400_000}
    del settings["delete.retention.ms"]
    with pytest.raises(EnvironmentFault, match="the brokers do not say its delete"):
        admin.delete_retention_ms(CONFIG)
