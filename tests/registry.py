"""A schema registry for tests: Confluent's API over real HTTP, in memory, with outages and odd answers on demand."""

import json
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

Answer = tuple[int, Any]
"""Status, and what is sent as JSON; bytes are sent as they are."""


@dataclass
class Registry:
    """What is registered, and how it answers."""

    url: str = ""
    schemas: list[dict[str, Any]] = field(default_factory=list)
    """By id, from 1."""
    subjects: dict[str, list[int]] = field(default_factory=dict)
    """Ids of the versions of each subject, from version 1."""
    answers: list[Answer] = field(default_factory=list)
    """Given instead of its own, each once."""
    away: Answer | None = None
    """Given instead of its own, until it is None again."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests so far."""
    seen: list[Mapping[str, str]] = field(default_factory=list)
    """Headers of the requests so far."""

    def register(
        self, subject: str, text: str, kind: str = "AVRO", references: list[dict[str, Any]] | None = None
    ) -> int:
        """Registers a schema and returns its id."""
        schema: dict[str, Any] = {"schema": text, "schemaType": kind, "references": references or []}
        found = next((number for number, known in enumerate(self.schemas, 1) if known == schema), 0)
        if not found:
            self.schemas.append(schema)
            found = len(self.schemas)
        versions = self.subjects.setdefault(subject, [])
        if found not in versions:
            versions.append(found)
        return found

    def guid(self, identifier: int) -> uuid.UUID:
        """Returns the id that a schema has in every registry."""
        return uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(self.schemas[identifier - 1]))

    def answer(self, path: str, body: dict[str, Any] | None) -> Answer:
        """Returns what a request is answered."""
        if self.answers:
            return self.answers.pop(0)
        if self.away is not None:
            return self.away
        found = self._found([unquote(step) for step in urlsplit(path).path.strip("/").split("/")], body)
        return (404, {"error_code": 40403, "message": "Schema not found"}) if found is None else (200, found)

    def _found(self, steps: list[str], body: dict[str, Any] | None) -> dict[str, Any] | None:
        match steps, body:
            case ["schemas", "ids", number], None:
                known = int(number)
            case ["schemas", "guids", guid], None:
                numbers = range(1, len(self.schemas) + 1)
                known = next((each for each in numbers if str(self.guid(each)) == guid), 0)
            case ["subjects", subject, "versions"], dict():
                known = self.register(subject, body["schema"], body.get("schemaType") or "AVRO", body.get("references"))
            case ["subjects", subject], dict():
                versions = self.subjects.get(subject, [])
                known = next((each for each in versions if self.schemas[each - 1]["schema"] == body["schema"]), 0)
            case ["subjects", subject, "versions", version], None:
                known = self._version(self.subjects.get(subject, []), version)
            case _:
                known = 0
        if not 0 < known <= len(self.schemas):
            return None
        place = (
            {} if steps[0] == "schemas" else {"subject": steps[1], "version": self.subjects[steps[1]].index(known) + 1}
        )
        return self._described(known) | place

    @staticmethod
    def _version(versions: list[int], version: str) -> int:
        place = len(versions) if version == "latest" else int(version)
        return versions[place - 1] if 0 < place <= len(versions) else 0

    def _described(self, number: int) -> dict[str, Any]:
        return {**self.schemas[number - 1], "id": number, "guid": str(self.guid(number))}


@contextmanager
def serve_registry(tls: tuple[str, str] | None = None) -> Iterator[Registry]:
    """Runs a registry; `tls` names a key and a certificate."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[1], tls[0])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    registry.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    registry: ClassVar[Registry]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any] | None) -> None:
        self.registry.asked.append(self.path)
        self.registry.seen.append(dict(self.headers))
        status, said = self.registry.answer(self.path, body)
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""
