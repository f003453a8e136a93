"""What a configuration may say, and what the message is when it says something else."""

from typing import Any

import pytest

from pipeline.config.advice import advice
from pipeline.errors import ConfigError
from tests.config_trees import ABSENT, parsed

TICKETS = "source__topics__tickets"


def refusal(environ: dict[str, str] | None = None, /, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(environ, **changes)
    return str(caught.value)


def test_the_unchanged_tree_is_valid() -> None:
    assert parsed().pipeline == "null"


@pytest.mark.parametrize(
    ("changes", "place", "suggestion"),
    [
        ({"pipelinee": "x"}, "pipelinee", "'pipeline'"),
        ({"source__group": "x"}, "source.group", "'group_id'"),
        ({"source__security__mechanism": "PLAIN"}, "source.security.mechanism", "'sasl_mechanism'"),
        ({f"{TICKETS}__texts": "x"}, "source.topics.tickets.texts", "'text'"),
        ({f"{TICKETS}__delete_when__fieldd": "x"}, "source.topics.tickets.delete_when.fieldd", "'field'"),
        ({"models__null__modelo": "x"}, "models.null.modelo", "'model'"),
        ({"tasks__urgency__instructions": "x"}, "tasks.urgency.instructions", "'instruction'"),
        ({"store__pathh": "x"}, "store.pathh", "'path'"),
        ({"api__prot": 1}, "api.prot", "'port'"),
        ({"limits__max_record_byte": 1}, "limits.max_record_byte", "'max_record_bytes'"),
        ({"ray__addressed": "auto"}, "ray.addressed", "'address'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(
    changes: dict[str, Any], place: str, suggestion: str
) -> None:
    message = refusal(**changes)
    assert f"test.yaml: {place}: unknown key. Did you mean {suggestion}?" in message
    assert "Valid here:" in message


def test_an_unknown_key_of_a_qdrant_store_is_compared_with_that_stores_keys() -> None:
    message = refusal(store={"type": "qdrant", "url": "http://localhost:6334", "batch_point": 5})
    assert "store.batch_point: unknown key. Did you mean 'batch_points'?" in message
    assert "optimize_interval_s" not in message


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("enable_auto_commit", "commits by itself"),
        ("enable.auto.commit", "commits by itself"),
        ("auto_offset_reset", "start_from"),
        ("isolation_level", "committed records only"),
        ("group_protocol", "KIP-848"),
        ("partition_assignment_strategy", "cooperative-sticky"),
        ("value_deserializer", "raw bytes"),
        ("sasl_plain_password", "source.security.password"),
        ("pattern", "dead-letter"),
    ],
)
def test_kafka_settings_that_refract_sets_itself_are_refused_with_the_reason(key: str, reason: str) -> None:
    message = refusal(**{f"source__{key}": "anything"})
    assert f"source.{key}: is not set by hand: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api__port": "8000"}, "api.port: expected a whole number, found a string"),
        ({"api__port": True}, "api.port: expected a whole number, found a truth value"),
        ({"api__port": 8000.5}, "api.port: expected a whole number, found a number"),
        ({"limits__max_batch_records": "1e3"}, "limits.max_batch_records: expected a whole number, found a string"),
        ({"limits__max_batch_records": None}, "limits.max_batch_records: expected a whole number, found nothing"),
        ({"source__commit_interval_s": True}, "source.commit_interval_s: expected a number, found a truth value"),
        ({"source__commit_interval_s": float("nan")}, "source.commit_interval_s: expected a finite number"),
        ({"models__null__num_gpus": float("inf")}, "models.null.num_gpus: expected a finite number"),
        ({"pipeline": False}, "pipeline: expected a string, found a truth value"),
        ({"tasks__urgency__instruction": 7}, "tasks.urgency.instruction: expected a string, found a number"),
        ({f"{TICKETS}__payload_timestamp": 1}, "payload_timestamp: expected true or false, found a number"),
        ({f"{TICKETS}__tasks": "urgency"}, "source.topics.tickets.tasks: expected a list, found a string"),
        ({"api": None}, "api: expected a mapping, found nothing. Keys: api_key, host"),
        ({"tasks": []}, "tasks: expected a mapping, found a list"),
    ],
)
def test_a_value_of_another_type_is_never_converted(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"limits__max_batch_records": 0}, "limits.max_batch_records"),
        ({"limits__max_batch_records": -1}, "limits.max_batch_records"),
        ({"limits__max_batch_records": 10**9}, "limits.max_batch_records"),
        ({"limits__max_in_flight_bytes": 1}, "limits.max_in_flight_bytes"),
        ({"limits__max_dead_letter_share": 0.0}, "limits.max_dead_letter_share"),
        ({"models__null__replicas": -1}, "models.null.replicas"),
        ({"models__null__num_gpus": -0.5}, "models.null.num_gpus"),
        ({"source__session_timeout_ms": 10}, "source.session_timeout_ms"),
        ({"source__max_poll_interval_ms": 10**10}, "source.max_poll_interval_ms"),
        ({"source__max_inflated_batch_bytes": 1_000}, "source.max_inflated_batch_bytes"),
        ({"api__port": 65_536}, "api.port"),
        ({"tasks__urgency__dimension": 1}, "tasks.urgency.dimension"),
    ],
)
def test_numbers_outside_their_limits_are_refused(changes: dict[str, Any], place: str) -> None:
    message = refusal(**changes)
    assert f"test.yaml: {place}: should be" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source__group_id": ABSENT}, "source.group_id: is missing"),
        ({"store__type": ABSENT}, "store.type: is missing; expected edge or qdrant"),
        ({"store__type": "qdrnat"}, "store.type: expected edge or qdrant. Did you mean 'qdrant'?"),
        ({"tasks__urgency__mode": "retrievall"}, "expected one of symmetric, retrieval. Did you mean 'retrieval'?"),
        ({"source__topics": {}}, "source.topics: must not be empty"),
        ({"tasks__urgency__model": "nul"}, "tasks.urgency.model: no model 'nul' in this file. Did you mean 'null'?"),
        ({f"{TICKETS}__tasks": ["urgncy"]}, "no task 'urgncy' in this file. Did you mean 'urgency'?"),
        ({f"{TICKETS}__tasks": ["urgency", "urgency"]}, "names a task twice"),
        ({"tasks__urgency__collection": "technical_issue"}, "both write collection 'technical_issue'"),
        ({"tasks__urgency__query_instruction": "x"}, "query_instruction is for mode: retrieval"),
        ({"models__null__revision": "main"}, "a branch name pins nothing"),
        ({"models__null__replicas": 4, "models__null__max_replicas": 2}, "max_replicas is below replicas"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source__dead_letter_topic": "tickets"}, "is also a source topic"),
        ({"source__dead_letter_topic": "__consumer_offsets"}, "internal to Kafka"),
        ({"source__topics__tickets.*": {"text": "{a}", "tasks": ["urgency"]}}, "Patterns are not supported"),
        ({"source__topics__..": {"text": "{a}", "tasks": ["urgency"]}}, "is not a valid topic name"),
        ({"source__heartbeat_interval_ms": 20_000}, "a third of session_timeout_ms"),
        ({"source__session_timeout_ms": 600_000}, "at least session_timeout_ms"),
        ({"source__bootstrap_servers": []}, "source.bootstrap_servers: must not be empty"),
        ({"source__bootstrap_servers": ["localhost"]}, "expected host:port"),
        ({"source__bootstrap_servers": ["user:secret@host:9092"]}, "expected host:port"),
    ],
)
def test_a_kafka_side_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


@pytest.mark.parametrize("given", ["a:1,b:2", "a:1, b:2,", ["a:1,", "b:2"], [" a:1 ,b:2,"]])
def test_brokers_may_be_one_text_and_end_in_a_comma(given: str | list[str]) -> None:
    assert parsed(source__bootstrap_servers=given).source.bootstrap_servers == ["a:1", "b:2"]


@pytest.mark.parametrize("empty", ["", ",", [], [","]])
def test_brokers_that_are_none_are_refused(empty: Any) -> None:
    assert "bootstrap_servers" in refusal(source__bootstrap_servers=empty)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_secret_that_ends_in_a_line_break_is_noticed(end: str) -> None:
    assert "line break" in refusal({"KEY": f"key{end}"}, api__api_key="${KEY}")


def test_calls_under_way_do_not_cap_autoscaling_unless_the_file_says_so() -> None:
    def of(ingestors: int, replicas: int, **limits: int) -> int:
        config = parsed(
            models={"null": {"model": "null:8", "max_replicas": replicas}}, ray__ingestors=ingestors, limits=limits
        )
        return config.live_limits.max_concurrent_batches

    assert of(1, 1) == of(4, 8) == 4
    assert of(1, 8) == 16
    assert of(3, 8) == 6
    assert of(1, 10_000) == 256
    assert of(1, 8, max_concurrent_batches=4) == 4
    assert of(1, 8, max_batch_records=64) == 16


def test_advice_where_calls_under_way_cap_autoscaling() -> None:
    models = {"null": {"model": "null:8", "max_replicas": 8}}
    lines = advice(parsed(models=models, limits={"max_concurrent_batches": 4}), ray_token=False)
    assert any(line.startswith("limits.max_concurrent_batches: 4 calls") and "16 do" in line for line in lines)
    assert not any("max_concurrent" in line for line in advice(parsed(models=models), ray_token=False))


def test_brokers_may_come_as_one_comma_list_from_the_environment() -> None:
    config = parsed({"BOOTSTRAP_SERVERS": "a:9092, b:9092"})
    assert config.source.bootstrap_servers == ["a:9092", "b:9092"]


@pytest.mark.parametrize(
    ("security", "message"),
    [
        ({"protocol": "SASL_SSL"}, "sasl_mechanism is needed"),
        ({"sasl_mechanism": "PLAIN", "username": "u", "password": "p"}, "only there"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "username": "u"}, "needs username and password"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs oauth_token_url"),
        ({"protocol": "SSL", "cert_file": "client.pem"}, "cert_file and key_file go together"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "expected one of PLAIN, SCRAM-SHA-256"),
    ],
)
def test_incomplete_security_is_refused(security: dict[str, Any], message: str) -> None:
    assert message in refusal(source__security=security)


@pytest.mark.parametrize(
    ("text", "message"),
    [("no field", "names no field"), ("", "at least 1 character"), ("{}", "names no field")],
)
def test_a_text_without_a_field_is_refused(text: str, message: str) -> None:
    assert message in refusal(**{f"{TICKETS}__text": text})


@pytest.mark.parametrize("payload", [["_version"], {"_state": "state"}])
def test_payload_names_of_the_system_are_refused(payload: Any) -> None:
    assert "begins with '_'" in refusal(**{f"{TICKETS}__payload": payload})


@pytest.mark.parametrize("path", ["", ".", "a..b", ".a", "a."])
def test_a_field_path_that_names_nothing_is_refused(path: str) -> None:
    assert "a field path is names joined by single dots" in refusal(**{f"{TICKETS}__key": path})


@pytest.mark.parametrize("name", ["a/b", "..", "ünicode", "a" * 300, "1st", "a b", ""])
def test_task_names_are_safe_in_urls_files_and_labels(name: str) -> None:
    message = refusal(tasks={name: {"model": "null"}}, **{f"{TICKETS}__tasks": [name]})
    assert "a name begins with a letter" in message


def test_the_api_is_loopback_only_without_a_key() -> None:
    assert "reachable from outside: set api.api_key" in refusal(api__host="0.0.0.0")  # noqa: S104 - what is refused
    assert parsed(api__host="0.0.0.0", api__api_key="k").api.api_key is not None  # noqa: S104 - allowed with a key


OTHER = {"key": "id", "text": "{t}", "version": "at", "version_type": "integer", "tasks": ["urgency"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": None, "version_type": None}, "give both a `version` field"),
        ({"version_type": "time"}, "version_type must be equal"),
    ],
)
def test_topics_with_one_key_space_need_versions_that_compare(changes: dict[str, Any], message: str) -> None:
    chat, mail = {**OTHER, "key_space": "messages"}, {**OTHER, "key_space": "messages"}
    assert parsed(source__topics={"chat": chat, "mail": mail}).source.key_spaces == {
        "chat": "messages",
        "mail": "messages",
    }
    assert message in refusal(source__topics={"chat": chat, "mail": {**mail, **changes}})
    own = parsed(source__topics={"chat": OTHER, "mail": {**OTHER, **changes}})
    assert own.source.key_spaces == {"chat": "chat", "mail": "mail"}


def test_a_topic_may_name_another_ones_key_space() -> None:
    topics = {"chat": OTHER, "mail": {**OTHER, "version": None, "version_type": None, "key_space": "chat"}}
    assert "share the key space 'chat'" in refusal(source__topics=topics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": {"field": "v"}}, "exactly `field` and `max`"),
        ({"key": ABSENT, "binary_key": True, "key_type": "integer"}, "drop key_type: integer"),
        ({"binary_key": True}, "drop one of them"),
        ({"key": ABSENT, "binary_key": True, "kafka_key": "json"}, "drop kafka_key"),
        ({"kafka_key": "int64"}, "set key_type: integer"),
        ({"version": ABSENT}, "version_type speaks of the field `version`"),
        ({"payload": ["a"], "payload_headers": ["a"]}, "payload"),
    ],
)
def test_topic_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**{f"{TICKETS}__{key}": value for key, value in changes.items()})


def test_an_api_key_never_travels_unencrypted() -> None:
    assert "use an https url" in refusal(store={"type": "qdrant", "url": "http://qdrant:6334", "api_key": "k"})
    for url in ("https://qdrant:6334", "http://localhost:6334", "http://[::1]:6334", "http://127.0.0.1:6334"):
        assert parsed(store={"type": "qdrant", "url": url, "api_key": "k"}).store.type == "qdrant"


def test_every_fault_is_told_at_once() -> None:
    lines = refusal(api__port=0, source__group_id=ABSENT, unknown=1).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("test.yaml: ") for line in lines)


def test_a_topic_called_like_a_store_keeps_its_name_in_messages() -> None:
    message = refusal(source__topics__edge={"tasks": ["urgency"]})
    assert "test.yaml: source.topics.edge.text: is missing" in message


def test_a_configuration_cannot_be_changed_after_it_was_checked() -> None:
    config = parsed()
    with pytest.raises(ValueError, match="frozen"):
        config.pipeline = "other"  # type: ignore[misc] # what is refused
