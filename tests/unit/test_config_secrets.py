"""Secrets stay secret, the files they lie in are usable, and what is only risky is said."""

import logging
import traceback
from pathlib import Path

import pytest
import yaml

from pipeline.config.advice import advice, file_faults
from pipeline.config.load import SECRETS, parse_config, read_tree
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError
from tests.certificates import key_and_certificate
from tests.config_trees import parsed, tree

SECRET = "hunter2-never-shown"  # noqa: S105 - a test's
SASL = {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u", "password": "${PW}"}
ENVIRON = {"PW": SECRET}


def secretive() -> Config:
    return parsed(
        ENVIRON,
        source__security={**SASL, "key_password": "${PW}"},
        store={"type": "qdrant", "url": "https://qdrant:6334", "api_key": "${PW}"},
        api__api_key="${PW}",
    )


def test_a_secret_is_there_for_those_who_ask_for_it() -> None:
    password = secretive().source.security.password
    assert password is not None
    assert password.get_secret_value() == SECRET


def test_secrets_appear_in_no_dump_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    config = secretive()
    logging.getLogger("test").warning("started with %s", config)
    for shown in (repr(config), str(config), config.model_dump_json(), str(config.model_dump()), caplog.text):
        assert SECRET not in shown
    assert "**********" in repr(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"source__security": {**SASL, "unknown": 1}},
        {"source__security": {**SASL, "sasl_mechanism": "SCRAM"}},
        {"source__security": {**SASL, "protocol": "SSL"}},
        {"source__security": {**SASL, "password": ["${PW}"]}},
        {"store": {"type": "qdrant", "url": "http://user:${PW}@qdrant:6334"}},
        {"store": {"type": "qdrant", "url": "http://qdrant:6334", "api_key": "${PW}"}},
        {"source__security": {"oauth_token_url": "https://u:${PW}@idp"}},
        {"api__host": "10.0.0.1", "api__port": "${PW}"},
    ],
)
def test_secrets_appear_in_no_error_and_no_traceback(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(ENVIRON, **changes)
    shown = "".join(traceback.TracebackException.from_exception(caught.value).format())
    assert SECRET not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "changes",
    [{"api__api_key": "${PW:-}", "api__host": "10.0.0.1"}, {"source__security": {**SASL, "password": "${PW:-}"}}],
)
def test_an_empty_secret_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        parsed({}, **changes)


@pytest.mark.parametrize("written", ["plain", "${PW:-plain}", "plain${PW}", "$PW"])
@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_written_in_the_file_is_refused(tmp_path: Path, place: str, written: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(tree(**{place.replace(".", "__"): written})))
    with pytest.raises(ConfigError, match=rf"{place}: the secret is written in the file") as caught:
        read_tree(path)
    assert "plain" not in str(caught.value)


def test_payload_fields_may_be_called_like_secrets(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(tree(source__topics__tickets__payload={"api_key": "key.id"}, api__api_key="${PW}")))
    assert parse_config(read_tree(path), environ=ENVIRON, origin="x").api.api_key is not None


def test_what_will_not_be_used_is_said() -> None:
    written = tree(
        tasks__lonely={"model": "null"}, models__spare={"model": "null:8"}, models__hub={"model": "org/name"}
    )
    lines = advice(parse_config(written, environ={}, origin="x"), ray_token=False)
    assert lines == [
        "models.hub.revision: absent, so a new upload to the hub changes the model; pin the commit in production",
        "models.hub: no task names it",
        "models.spare: no task names it",
        "tasks.lonely: no topic names it, so nothing will be written for it",
    ]


@pytest.mark.parametrize("address", ["ray://head.example.org:10001", "10.0.0.5:6379"])
def test_a_remote_ray_cluster_without_a_token_is_advised_against(address: str) -> None:
    written = tree(ray__address=address)
    config = parse_config(written, environ={}, origin="x")
    assert any("without a token" in line for line in advice(config, ray_token=False))
    assert advice(config, ray_token=True) == []


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "ray://localhost:10001"])
def test_a_local_ray_cluster_needs_no_token(address: str) -> None:
    written = tree(ray__address=address)
    assert advice(parse_config(written, environ={}, origin="x"), ray_token=False) == []


def tls(**files: str) -> Config:
    return parsed(ENVIRON, source__security={"protocol": "SSL", **files})


def test_certificate_files_that_fit_are_no_fault(tmp_path: Path) -> None:
    key, cert = key_and_certificate(tmp_path, "a", password=SECRET)
    assert file_faults(tls(key_file=key, cert_file=cert, ca_file=cert, key_password="${PW}")) == []  # noqa: S106 - a test's


def test_a_key_of_another_certificate_is_a_fault(tmp_path: Path) -> None:
    key, _ = key_and_certificate(tmp_path, "a", password=SECRET)
    _, cert = key_and_certificate(tmp_path, "b", password=SECRET)
    [fault] = file_faults(tls(key_file=key, cert_file=cert, key_password="${PW}"))  # noqa: S106 - a test's
    assert "the key does not belong to the certificate" in fault


def test_a_key_with_another_password_is_a_fault_and_asks_nobody(tmp_path: Path) -> None:
    key, cert = key_and_certificate(tmp_path, "a", password=SECRET)
    [fault] = file_faults(tls(key_file=key, cert_file=cert))
    assert "not usable" in fault


def test_unreadable_and_foreign_files_are_faults(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    assert file_faults(tls(ca_file="/absent.pem")) == [
        "source.security.ca_file: /absent.pem cannot be read (No such file or directory)"
    ]
    assert file_faults(tls(ca_file=str(text))) == [f"source.security.ca_file: {text} holds no PEM certificate"]
    assert file_faults(tls(cert_file="/absent.pem", key_file="/absent.key")) == [
        "source.security.cert_file, key_file: cannot be read (No such file or directory)"
    ]
    config = parsed(store={"type": "qdrant", "url": "https://qdrant:6334", "ca_file": str(text)})
    assert file_faults(config) == [f"store.ca_file: {text} holds no PEM certificate"]
