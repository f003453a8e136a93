"""Members of a group never share a name, and keep theirs over a restart."""

import re

import pytest

from pipeline.sources.group.member import GroupMember, member_name
from tests.config_trees import parsed


def static_id(name: str) -> str:
    made: list[str] = []

    def make(**settings: object) -> object:
        made.append(str(settings["group_instance_id"]))
        return object()

    config = parsed(source__group_instance_id="x" * 200).source
    GroupMember(config, name, make_consumer=make).connect()
    return made[0]


def test_the_clusters_of_a_rolling_upgrade_do_not_fence_each_other() -> None:
    old, new = (member_name(0, f"replica of {name}", name) for name in ("refract-raycluster-a", "refract-raycluster-b"))
    assert static_id(old) != static_id(new)
    assert static_id(old) == static_id(member_name(0, "started again", "refract-raycluster-a"))
    assert member_name(3, "any", None) == "3"


@pytest.mark.parametrize("cluster", [None, "refract-raycluster-a"])
def test_without_a_rank_the_name_is_unique_and_valid(cluster: str | None) -> None:
    names = {member_name(None, f"replica {number}", cluster) for number in range(3)}
    assert len(names) == 3
    for name in names:
        assert "None" not in name
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", static_id(name)), "Kafka's rule for group.instance.id"
