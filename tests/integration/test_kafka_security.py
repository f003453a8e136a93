"""Listeners with SASL and TLS: the right credentials read, the wrong ones call a person and say why."""

import datetime as dt
import ipaddress
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from pipeline.config.source import SourceConfig
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.sources.client import connection
from pipeline.sources.client.admin import inspect_cluster
from tests.broker import Broker, free_port, unique
from tests.integration.members import Reader, produce, source_config, texts

pytestmark = pytest.mark.kafka

USER, PASSWORD = "alice", "wonderland"
ODD_USER = "svc,app=1,=2C"


class Authority:
    """A certificate authority of our own, and one server certificate, as PEM files."""

    def __init__(self, folder: Path) -> None:
        now = dt.datetime.now(dt.UTC)
        lifetime = (now - dt.timedelta(hours=1), now + dt.timedelta(days=1))
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        ca = (
            self._builder(ca_name, ca_name, ca_key, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            self._builder(name, ca_name, key, lifetime)
            .add_extension(address, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        self.ca_file, self.certificate_file, self.key_file = (
            folder / "ca.pem",
            folder / "broker.pem",
            folder / "key.pem",
        )
        self.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.store_file = folder / "broker-store.pem"
        self.store_file.write_bytes(self.key_file.read_bytes() + self.certificate_file.read_bytes())

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: tuple[Any, Any]
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(lifetime[0])
            .not_valid_after(lifetime[1])
        )


class TokenEndpoint(BaseHTTPRequestHandler):
    """Hands out unsigned tokens, as the broker's development validator takes them."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        form = self.rfile.read(length).decode()
        good = self.headers["Authorization"] == "Basic " + _basic("client", "secret") and "client_credentials" in form
        now = dt.datetime.now(dt.UTC).timestamp()
        claims = {"sub": USER, "iat": now, "exp": now + 600}
        token = ".".join([_base64(json.dumps({"alg": "none"})), _base64(json.dumps(claims)), ""])
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": token, "expires_in": 600}).encode())

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


def _base64(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _basic(user: str, password: str) -> str:
    return urlsafe_b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"SASL_PLAINTEXT": free_port(), "SASL_SSL": free_port(), "SSL": free_port()}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority, ports: dict[str, int]) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("secured"))
    named = {"PLAINTEXT": broker.port, **ports}
    advertised = ",".join(f"{name}://127.0.0.1:{port}" for name, port in named.items())
    package = "org.apache.kafka.common.security"
    scram = f"{package}.scram.ScramLoginModule required;"
    broker.set_properties(
        {
            "listeners": f"{advertised},CONTROLLER://127.0.0.1:{broker.controller_port}",
            "advertised.listeners": advertised,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(authority.store_file),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca_file),
            **{
                f"listener.name.{name.lower()}.plain.sasl.jaas.config": f"{package}.plain.PlainLoginModule required "
                f'user_{USER}="{PASSWORD}";'
                for name in ("SASL_PLAINTEXT", "SASL_SSL")
            },
            **{
                f"listener.name.{name.lower()}.{mechanism}.sasl.jaas.config": scram
                for name in ("SASL_PLAINTEXT", "SASL_SSL")
                for mechanism in ("scram-sha-256", "scram-sha-512")
            },
            **{
                f"listener.name.{name.lower()}.oauthbearer.sasl.jaas.config": f"{package}.oauthbearer."
                f'OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
                for name in ("SASL_PLAINTEXT", "SASL_SSL")
            },
        }
    )
    with broker:
        admin = broker.admin()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            for user in (USER, ODD_USER):
                credential = UserScramCredentialUpsertion(user, mechanism, PASSWORD)
                assert admin.alter_user_scram_credentials([credential]) == {user: None}
        admin.close()
        yield broker


@pytest.fixture
def token_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), TokenEndpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def config_for(secured: Broker, port: int, **security: Any) -> tuple[str, SourceConfig]:
    topic = secured.create_topic(unique("secured"))
    return topic, source_config(f"127.0.0.1:{port}", topic, security=security)


def round_trip(topic: str, config: SourceConfig) -> None:
    produce(config, topic, texts(0, 5))
    with Reader(config) as reader:
        assert len(reader.read(5)) == 5


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_password_mechanism_reads_and_writes(
    secured: Broker, authority: Authority, ports: dict[str, int], protocol: str, mechanism: str
) -> None:
    tls = {"ca_file": str(authority.ca_file)} if protocol == "SASL_SSL" else {}
    security = {"protocol": protocol, "sasl_mechanism": mechanism, "username": USER, "password": PASSWORD, **tls}
    round_trip(*config_for(secured, ports[protocol], **security))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_scram_user_may_have_commas_and_equals_signs(secured: Broker, ports: dict[str, int], mechanism: str) -> None:
    security = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "username": ODD_USER, "password": PASSWORD}
    round_trip(*config_for(secured, ports["SASL_PLAINTEXT"], **security))


def test_a_token_reads_and_writes(secured: Broker, ports: dict[str, int], token_url: str) -> None:
    security = {
        "protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": token_url,
        "oauth_client_id": "client",
        "oauth_client_secret": "secret",
    }
    round_trip(*config_for(secured, ports["SASL_PLAINTEXT"], **security))
    _, refused = config_for(secured, ports["SASL_PLAINTEXT"], **{**security, "oauth_client_secret": "guess"})
    with pytest.raises(EnvironmentFault, match="token endpoint answered 401") as caught:
        inspect_cluster(refused)
    assert "guess" not in str(caught.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_needs_a_person_and_is_not_repeated_in_the_message(
    secured: Broker, ports: dict[str, int], mechanism: str
) -> None:
    security = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "username": USER, "password": "guessed!"}
    _, config = config_for(secured, ports["SASL_PLAINTEXT"], **security)
    with Reader(config) as reader, pytest.raises(EnvironmentFault, match="Authentication") as caught:
        reader.poll_for(20)
    assert "guessed!" not in str(caught.value)


def test_a_client_certificate_is_presented(secured: Broker, authority: Authority, ports: dict[str, int]) -> None:
    security = {
        "protocol": "SSL",
        "ca_file": str(authority.ca_file),
        "cert_file": str(authority.certificate_file),
        "key_file": str(authority.key_file),
    }
    round_trip(*config_for(secured, ports["SSL"], **security))


def test_a_broker_of_an_unknown_authority_is_refused_with_a_word_about_it(
    secured: Broker, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BOOTSTRAP_TIMEOUT_MS", 1_500)
    _, config = config_for(secured, ports["SSL"], protocol="SSL")
    with pytest.raises(EnvironmentFault, match=r"CERTIFICATE_VERIFY_FAILED.*ca_file"):
        inspect_cluster(config)


def test_an_unreadable_certificate_file_is_named_at_the_start(
    secured: Broker, ports: dict[str, int], tmp_path: Path
) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    for ca_file, said in ((broken, "ca.pem"), (tmp_path / "absent.pem", "absent.pem")):
        _, config = config_for(secured, ports["SSL"], protocol="SSL", ca_file=str(ca_file))
        with pytest.raises(ConfigError, match=f"ca_file.*{said}"):
            inspect_cluster(config)
