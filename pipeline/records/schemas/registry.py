"""Asks a schema registry by Confluent's API (docs.confluent.io, Schema Registry API) and keeps its answers."""

import base64
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from pipeline.clock import Clock
from pipeline.config.formats import SchemaRegistryConfig
from pipeline.errors import EnvironmentFault, Reason, RecordError, TransientError

MAX_SCHEMA_BYTES = 4 << 20
"""Of an answer: Confluent's own registry takes schemas of up to 1 MB."""

MAX_SCHEMAS = 1_000
"""Kept of each kind; then all are forgotten and asked for again."""

REST_S = 1.0
"""After an outage nothing is asked for so long: records of many partitions must not wait one time-out each."""

ASK_AGAIN_S = 10.0
"""An id that the registry does not know is asked for again after so long: it may be registered by then."""

MAX_REFERENCES = 200
"""Schemas that one schema uses, directly or not."""

SchemaId = int | uuid.UUID
"""A schema's id in its registry, or its id in every registry."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one uses."""

    name: str
    """How it is named there: an Avro type, or the path of an import."""
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as it is registered."""

    kind: str
    """AVRO, PROTOBUF or JSON."""
    text: str
    """JSON, or a .proto file, or a base64 FileDescriptorProto, as it was registered."""
    references: tuple[Reference, ...] = ()


class SchemaRegistry:
    """One registry. Thread-safe. Registered schemas never change, so what is known is not asked for again."""

    def __init__(
        self,
        config: SchemaRegistryConfig,
        clock: Clock = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connects to nothing yet."""
        self.url = config.url.rstrip("/")
        self._config = config
        self._clock = clock
        self._transport = transport
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()
        self._known: dict[str, Schema] = {}
        self._unknown: dict[str, float] = {}
        self._rests_until_s = 0.0
        self._outage = ""

    def schema(self, identifier: SchemaId) -> Schema:
        """Returns the schema of an id.

        Raises:
            RecordError: UNKNOWN_SCHEMA, or UNUSABLE_SCHEMA for one that is too large.
            TransientError: no registry answers.
            EnvironmentFault: the registry refuses the credentials, or this client's certificate cannot be used.
        """
        if isinstance(identifier, uuid.UUID):
            return self._schema(f"/schemas/guids/{identifier}", f"the schema {identifier}")
        return self._schema(f"/schemas/ids/{identifier}", f"the schema id {identifier}")

    def version(self, subject: str, version: int | str) -> Schema:
        """Returns a version of a subject, also one that was deleted softly. Raises like `schema`."""
        path = f"/subjects/{_quoted(subject)}/versions/{version}?deleted=true"
        return self._schema(path, f"version {version} of the subject {subject}")

    def latest(self, subject: str) -> Schema | None:
        """Returns the newest version of a subject as of now, None where there is none. Raises like `schema`."""
        path = f"/subjects/{_quoted(subject)}/versions/latest"
        try:
            return _schema_in(self._ask(path, f"the subject {subject}"))
        except RecordError as error:
            if error.reason is Reason.UNKNOWN_SCHEMA:
                return None
            raise

    def _schema(self, path: str, what: str) -> Schema:
        known = self._known.get(path)
        if known is not None:
            return known
        if self._clock() < self._unknown.get(path, 0.0):
            raise _unknown(what)
        try:
            found = _schema_in(self._ask(path, what))
        except RecordError as error:
            if error.reason is Reason.UNKNOWN_SCHEMA:
                _remember(self._unknown, path, self._clock() + ASK_AGAIN_S)
            raise
        _remember(self._known, path, found)
        return found

    def _ask(self, path: str, what: str) -> Mapping[str, Any]:
        if self._clock() < self._rests_until_s:
            raise TransientError(self._outage)
        try:
            status, headers, content = self._get(path)
        except httpx.HTTPError as error:
            raise self._away(f"does not answer ({type(error).__name__})") from None
        if len(content) > MAX_SCHEMA_BYTES:
            raise RecordError(Reason.UNUSABLE_SCHEMA, f"{what} is larger than {MAX_SCHEMA_BYTES} bytes")
        answer = _object(content)
        if status == HTTPStatus.OK and isinstance(answer.get("schema"), str):
            return answer
        if status == HTTPStatus.UNAUTHORIZED:
            raise EnvironmentFault(f"the schema registry {self.url} refuses the credentials (401)")
        # Others than the registry answer 404 and 403 as well, a proxy before it for example; they give no code.
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN} and type(answer.get("error_code")) is int:
            if status == HTTPStatus.FORBIDDEN:
                raise RecordError(Reason.UNKNOWN_SCHEMA, f"the schema registry does not show {what} to this client")
            raise _unknown(what)
        asked_s = headers.get("retry-after", "")
        raise self._away(f"answers {status}", float(asked_s) if asked_s.isdecimal() else None)

    def _get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Returns status, headers and body of an answer; of a body that is too large a little more than the limit."""
        with self._client().stream("GET", self.url + path) as answer:
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MAX_SCHEMA_BYTES:
                    break
            return answer.status_code, answer.headers, content

    def _away(self, why: str, retry_after_s: float | None = None) -> TransientError:
        self._outage = f"the schema registry {self.url} {why}"
        self._rests_until_s = self._clock() + REST_S
        return TransientError(self._outage, retry_after_s=retry_after_s)

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                config = self._config
                headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
                if config.bearer_token is not None:
                    headers["Authorization"] = f"Bearer {config.bearer_token.get_secret_value()}"
                elif config.username is not None and config.password is not None:
                    login = f"{config.username}:{config.password.get_secret_value()}"
                    headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
                self._http = httpx.Client(
                    headers=headers, timeout=config.timeout_s, verify=_tls(config), transport=self._transport
                )
            return self._http


def _tls(config: SchemaRegistryConfig) -> ssl.SSLContext | bool:
    if not config.url.startswith("https"):
        return True
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            password = config.key_password.get_secret_value() if config.key_password else ""
            context.load_cert_chain(config.cert_file, config.key_file, lambda: password)
    except OSError as error:  # an SSLError is one, too
        raise EnvironmentFault(f"source.schema_registry: its certificate files cannot be used ({error})") from None
    return context


def _unknown(what: str) -> RecordError:
    return RecordError(Reason.UNKNOWN_SCHEMA, f"the schema registry does not know {what}")


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    return answer if isinstance(answer, dict) else {}


def _schema_in(answer: Mapping[str, Any]) -> Schema:
    references = answer.get("references") or []
    try:
        uses = tuple(Reference(str(each["name"]), str(each["subject"]), int(each["version"])) for each in references)
    except (KeyError, TypeError, ValueError):
        raise RecordError(Reason.UNUSABLE_SCHEMA, "the schema registry's references have no name or version") from None
    return Schema(str(answer.get("schemaType") or "AVRO"), answer["schema"], uses)


def _quoted(subject: str) -> str:
    """Returns a subject as one step of a path: it may hold a context, `:.staging:tickets-value`, or a slash."""
    return quote(subject, safe="")


def _remember(kept: dict[str, Any], path: str, what: object) -> None:
    if len(kept) >= MAX_SCHEMAS:
        kept.clear()
    kept[path] = what


def with_references(registry: SchemaRegistry | None, schema: Schema) -> dict[str, Schema]:
    """Returns what a schema uses, directly or not, by name: what others use first.

    Raises like `SchemaRegistry.schema`; UNUSABLE_SCHEMA for references that go round in circles or are too many.
    """
    found: dict[str, Schema] = {}

    def add(user: Schema, users: tuple[str, ...]) -> None:
        for reference in user.references:
            if reference.name in users or len(users) + len(found) > MAX_REFERENCES:
                raise RecordError(Reason.UNUSABLE_SCHEMA, "its references are too many, or go round in circles")
            if reference.name not in found and registry is not None:
                used = registry.version(reference.subject, reference.version)
                add(used, (*users, reference.name))
                found[reference.name] = used

    add(schema, ())
    return found
