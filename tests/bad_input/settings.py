"""What a configuration can get wrong: a table of changes to configs/null.yaml, each given to `refract check`."""

import contextlib
import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from actors.supervisor import RunningApp
from pipeline.binding import Task
from pipeline.cli.exits import ExitCode
from pipeline.cli.main import invoke
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.stores.edge import EdgeStore
from tests.bad_input.case import MARKER_SECRET, Case, Place, leaks, verdict
from tests.bad_input.stream import URGENCY, everything_logged
from tests.broker import free_port
from tests.certificates import key_and_certificate
from tests.config_trees import tree

REFUSED = "refused at start, exit 2"
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


def refused(row: int, says: str, **changes: Any) -> Case:
    """A change of the null example that must be refused with these words."""
    return Case(row, _given(changes), REFUSED, lambda place: _checked(place, _written(place, changes), says))


def refused_text(row: int, given: str, says: str, text: str) -> Case:
    """A file as it stands."""

    def see(place: Place) -> str:
        path = place.folder / "test.yaml"
        path.write_text(text, encoding="utf-8")
        return _checked(place, path, says)

    return Case(row, given, REFUSED, see)


def advised(row: int, says: str, **changes: Any) -> Case:
    """A change that is taken, with a word of advice."""
    expected = "accepted with advice"
    return Case(row, _given(changes), expected, lambda place: _checked(place, _written(place, changes), says))


def _given(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('__', '.')}: {value!r}" for name, value in changes.items())


def _written(place: Place, changes: dict[str, Any]) -> Path:
    path = place.folder / "test.yaml"
    path.write_text(yaml.safe_dump(tree(**{"store__path": str(place.folder / "store"), **changes})), encoding="utf-8")
    return path


def _too_many_gpus(place: Place) -> str:
    """The whole start but Ray itself, which says what it has."""
    for name, answer in (("init", None), ("cluster_resources", {"CPU": 64.0, "GPU": 1.0}), ("shutdown", None)):
        place.patch.setattr(f"actors.supervisor.ray.{name}", lambda *_, answer=answer, **__: answer)
    path = _written(place, {"models__null__num_gpus": 2, "api__port": free_port()})
    try:
        RunningApp(path).start(lambda _: None)
    except ConfigError as error:
        said = "asks for 2 GPUs in all" in str(error) and "the cluster has 1" in str(error)
        return "refused at once, naming both numbers" if said else f"refused with: {error}"
    return "started"


def _checked(place: Place, path: Path, says: str) -> str:
    """Runs `refract check --json` with brokers that answer; tells how it ended."""
    place.patch.setattr("pipeline.sources.client.admin.inspect_cluster", lambda _config: {"brokers": 1})
    place.patch.setenv("HF_HUB_OFFLINE", "1")
    code, plan, shown = _check(path)
    spoken = [fault["message"] for fault in plan["faults"]] if code else plan["advice"]
    problems = [f"{marker} was shown" for marker in leaks(shown)]
    if not any(says in line for line in spoken):
        problems.append(f"nothing said {says!r}: {spoken}")
    if (place.folder / "store").exists():
        problems.append("the check created the store")
    outcomes = {ExitCode.CONFIG: REFUSED, ExitCode.OK: "accepted with advice" if spoken else "accepted"}
    return verdict(outcomes.get(ExitCode(code), f"exit {code}"), problems)


def _check(path: Path) -> tuple[int, dict[str, Any], str]:
    out, err = io.StringIO(), io.StringIO()
    with everything_logged() as logged, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = invoke(["check", str(path), "--json"])
        shown = out.getvalue() + err.getvalue() + logged()
    return code, json.loads(out.getvalue()), shown


def with_certificates(row: int, given: str, says: str, make: Callable[[Path], dict[str, str]]) -> Case:
    """TLS files that are made for the case."""

    def see(place: Place) -> str:
        security = {"protocol": "SSL", **make(place.folder)}
        return _checked(place, _written(place, {"source__security": security}), says)

    return Case(row, given, REFUSED, see)


def _foreign_key(folder: Path) -> dict[str, str]:
    (key, _), (_, cert) = key_and_certificate(folder, "a"), key_and_certificate(folder, "b")
    return {"key_file": key, "cert_file": cert}


def _expired(folder: Path) -> dict[str, str]:
    key, cert = key_and_certificate(folder, "old", until=dt.datetime(2020, 1, 2, tzinfo=dt.UTC))
    return {"key_file": key, "cert_file": cert}


def _expired_authority(folder: Path) -> dict[str, str]:
    return {"ca_file": key_and_certificate(folder, "old-ca", until=dt.datetime(2020, 1, 2, tzinfo=dt.UTC))[1]}


def _collection_of_another(place: Place) -> str:
    """The store refuses at `open`, before anything is read."""
    store = EdgeStore(EdgeStoreConfig(type="edge", path=place.folder / "store"), "p")
    store.open([URGENCY])
    said = []
    for other in (
        Task(URGENCY.name, URGENCY.config, URGENCY.dimension * 2, URGENCY.fingerprint),
        Task(URGENCY.name, URGENCY.config, URGENCY.dimension, URGENCY.fingerprint[:-1] + "x"),
    ):
        try:
            store.open([other])
        except EnvironmentFault as error:
            said.append("dimension" if "dimension" in str(error) else "fingerprint")
    store.close()
    return f"refused at start: {', '.join(said)}"


TOPIC = "source__topics__tickets__"
SASL = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": MARKER_SECRET}

CASES = [
    refused(46, "Did you mean 'urgency'?", **{f"{TOPIC}tasks": ["urgancy"]}),
    *(
        refused(47, "a name begins with a letter", **{f"{TOPIC}tasks": [name]})
        for name in ("a/b", "..", "\u00fcnicode", "a" * 300)
    ),
    refused(48, "begins with '_'", **{f"{TOPIC}payload": ["_version"]}),
    refused(48, "begins with '_'", **{f"{TOPIC}payload": {"_state": "state"}}),
    refused(62, "needs schemas: set schema_registry.url", **{f"{TOPIC}format": "avro"}),
    refused(62, "avro", **{f"{TOPIC}format": "avor"}),
    refused(78, "Did you mean 'group_id'", source__grup_id="x"),
    refused(78, "Did you mean 'limits'", limit={}),
    refused(79, "refract commits by itself", source__enable_auto_commit=True),
    refused(79, "a reset skips records silently", source__auto_offset_reset="latest"),
    refused(79, "read_uncommitted would index", source__isolation_level="read_uncommitted"),
    refused(80, "KIP-848", source__group_protocol="consumer"),
    refused(81, "at most a third", source__heartbeat_interval_ms=20_000),
    refused(81, "max_poll_interval_ms must be", source__max_poll_interval_ms=30_000),
    refused(81, "session_timeout_ms", source__session_timeout_ms=10),
    refused(82, "cooperative-sticky", source__partition_assignment_strategy=["range", "cooperative-sticky"]),
    refused(83, "must never share a collection", tasks__technical_issue__collection="urgency"),
    Case(
        84,
        "the collection exists with another size, then with another fingerprint",
        "refused at start: dimension, fingerprint",
        _collection_of_another,
    ),
    Case(
        85,
        "a Qdrant server older than 1.19",
        "refused at start",
        proven_by="tests/contract/test_qdrant_store.py::test_a_server_whose_log_replay_is_unsafe_is_refused",
    ),
    refused(86, "use an https url", store={"type": "qdrant", "url": "http://q.example.org:6334", "api_key": "${HOME}"}),
    refused(87, "the secret is written in the file", source__security=SASL),
    refused(87, "the secret is written in the file", api__api_key=MARKER_SECRET),
    refused(87, "the secret is written in the file", api__api_key=f"${{ABSENT_KEY:-{MARKER_SECRET}}}"),
    refused(88, "the environment variable ABSENT_NAME is not set", source__group_id="${ABSENT_NAME}"),
    refused(88, "cannot be read", source__security={"protocol": "SSL", "ca_file": "/absent.pem"}),
    with_certificates(88, "a key of another certificate", "does not belong", _foreign_key),
    with_certificates(88, "a certificate that expired in 2020", "expired", _expired),
    with_certificates(88, "an authority that expired in 2020", "expired", _expired_authority),
    *(refused(90, "limits.max_batch_records", limits__max_batch_records=value) for value in (0, -1, 10**9, "10", True)),
    refused(90, "finite", limits__max_dead_letter_share=float("nan")),
    refused(90, "finite", ray__ingestor_cpus=float("inf")),
    Case(
        91,
        "a model with pickled weights only",
        "refused at start",
        proven_by="tests/unit/engine/test_engine_checks.py::test_pickled_weights_are_never_read",
    ),
    Case(
        91,
        "a model that brings its own code",
        "refused at start",
        proven_by="tests/unit/engine/test_engine_checks.py::test_remote_code_is_refused_unless_the_native_class_stands_in",
    ),
    refused(92, "a branch name pins nothing", models__null={"model": "org/model", "revision": "main"}),
    Case(
        92,
        "a hub model without a revision",
        "accepted with advice",
        proven_by="tests/unit/test_config_secrets.py::test_what_will_not_be_used_is_said",
    ),
    refused(93, "names no field", **{f"{TOPIC}text": "no placeholder"}),
    *(
        refused(
            93,
            "{text}",
            models__null={
                "model": "packaged:all-MiniLM-L6-v2",
                "overrides": {"instruction_style": "free_form", "query_template": template},
            },
        )
        for template in ("{instruction}", "{instruction}: {text} {text}")
    ),
    refused_text(94, "nested anchors", "anchors and aliases", BOMB),
    refused_text(94, "!!python/object/apply:os.system", "not valid YAML", "a: !!python/object/apply:os.system [id]\n"),
    refused_text(94, "a key twice", "appears twice", "pipeline: a\npipeline: b\n"),
    refused_text(94, "a: no", "write true or false", "pipeline: no\n"),
    refused_text(94, "2,000 brackets", "nested too deeply", "a: " + "[" * 2_000),
    refused(94, "expected a whole number", limits__max_batch_records="1e3"),
    refused(95, "could match the dead-letter topic", source__pattern="tickets.*"),
    refused(95, "could match the dead-letter topic", source__topics={"tick.*": tree()["source"]["topics"]["tickets"]}),
    refused(95, "internal to Kafka", source__dead_letter_topic="__consumer_offsets"),
    refused(96, "go round in circles", source__dead_letter_topic="tickets"),
    advised(97, "reached without a token", ray__address="ray://head.example.org:10001"),
    Case(98, "two GPUs on a cluster that has one", "refused at once, naming both numbers", _too_many_gpus),
]
