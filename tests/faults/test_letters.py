"""A dead-letter topic that is gone, takes nothing, or takes little: row 42."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from pipeline.errors import Reason
from tests.e2e.harness import wait_until
from tests.faults.harness import Ground, Rig
from tests.faults.results import fault_run

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

BAD = b'{"id": "p", "title":'


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A ground whose broker heeds access rules; without one for a topic everybody may do everything."""
    made = Ground(tmp_path_factory.mktemp("letters"))
    made.broker.set_properties(
        {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
    )
    with made:
        yield made


def letters_topic(rig: Rig) -> str:
    return rig.config.source.dead_letter_topic


def with_admin(rig: Rig, method: str, *arguments: Any) -> Any:
    admin = rig.ground.broker.admin()
    try:
        return getattr(admin, method)(*arguments)
    finally:
        admin.close()


def configure(rig: Rig, name: str, value: int) -> None:
    change = ConfigResource(ConfigResourceType.TOPIC, letters_topic(rig), {name: str(value)})
    with_admin(rig, "alter_configs", [change])


def test_topic_is_deleted(rig: Rig) -> None:
    with fault_run(42) as run, rig.worker() as member:
        member.wait_ready()
        assert letters_topic(rig) in with_admin(rig, "list_topics")
        with_admin(rig, "delete_topics", [letters_topic(rig)])
        wait_until(lambda: letters_topic(rig) not in with_admin(rig, "list_topics"), "the topic is gone")
        rig.send(300)
        rig.journal.poison(Reason.INVALID_JSON, BAD)
        rig.journal.settle()
        run.healed()
        rig.wait_progress(run)
        rig.check(run)


def test_topic_takes_nothing(rig: Rig) -> None:
    """Nobody may write to it: the worker stops loudly in front of the bad record, and goes on once it may."""
    journal = rig.journal
    forbidden = (
        "User:ANONYMOUS",
        "*",
        ACLOperation.WRITE,
        ACLPermissionType.DENY,
    )
    with fault_run(42, seed=1) as run:
        with rig.worker() as member:
            member.wait_ready()
            with_admin(rig, "create_acls", [ACL(*forbidden, ResourcePattern(ResourceType.TOPIC, letters_topic(rig)))])
            rig.send(300)
            journal.poison(Reason.INVALID_JSON, BAD)
            rig.send(300)
            ((topic, partition, offset),) = journal.letters
            assert member.wait() == 1
            assert letters_topic(rig) in member.output().splitlines()[-1]
        assert (rig.committed() or {}).get((topic, partition), 0) <= offset, "passed without its letter"
        place = ResourcePatternFilter(ResourceType.TOPIC, letters_topic(rig), ACLResourcePatternType.LITERAL)
        with_admin(rig, "delete_acls", [ACLFilter(*forbidden, place)])
        run.healed()
        with rig.worker(1):
            rig.wait_progress(run)
            rig.check(run)


def test_topic_takes_little(rig: Rig) -> None:
    """A letter that does not fit is shortened, and says of which record it is."""
    configure(rig, "max.message.bytes", 20_000)
    noise = base64.b64encode(random.Random(0).randbytes(45_000)).decode()  # which no compression makes fit
    with fault_run(42, seed=2) as run:
        rig.send(300)
        rig.journal.poison(Reason.NO_KEY, json.dumps({"title": noise}).encode())
        rig.journal.poison(Reason.INVALID_JSON, BAD)
        rig.journal.settle()
        run.healed()
        with rig.worker() as member:
            rig.wait_finished()
            run.recovered()
            rig.check(run)
            assert member.state()["letters"] == 2
        letters = rig.journal.stored_letters()
        assert sorted(letter.is_shortened for letter in letters) == [False, True]
