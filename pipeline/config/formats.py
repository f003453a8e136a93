"""How records are encoded, and where the registry of their schemas is."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import FilePath, Secret, Section, Url

Format = Literal["json", "json_schema", "avro", "protobuf", "string"]
KeyFormat = Literal["text", "json", "int32", "int64", "json_schema", "avro", "protobuf"]

WITH_SCHEMA = frozenset({"avro", "protobuf"})
"""Formats whose bytes mean nothing without a schema, from the registry or from a file."""

STRING_FIELD = "value"
"""The one field of a record of format `string`."""


class SchemaRegistryConfig(Section):
    """The schema registry: anything that speaks Confluent's API (Confluent, Apicurio, Karapace, Redpanda)."""

    url: Url = Field(
        description="Address of the registry; Apicurio's is https://HOST/apis/ccompat/v7. Without user or password."
    )
    username: str | None = Field(None, description="Basic authentication; on Confluent Cloud the API key.")
    password: Secret | None = Field(None, description="Basic authentication; write it as ${NAME}.")
    bearer_token: Secret | None = Field(None, description="Sent as `Authorization: Bearer`; write it as ${NAME}.")
    ca_file: FilePath | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate."
    )
    cert_file: FilePath | None = Field(None, description="PEM certificate of this client, for mutual TLS.")
    key_file: FilePath | None = Field(None, description="PEM key of cert_file.")
    key_password: Secret | None = Field(None, description="Password of key_file; write it as ${NAME}.")
    timeout_s: float = Field(
        5.0,
        gt=0,
        le=60,
        description="A registry that takes longer is away. Raising it makes the loop wait longer for each request.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.bearer_token is not None:
            raise ValueError("username and bearer_token are two ways to log in; drop one of them")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


@dataclass(frozen=True, slots=True)
class PartFormat:
    """How one part of a topic's records is encoded: their values or their Kafka keys."""

    prefix: str
    """What the names of its settings begin with: "" or "key_"."""
    setting: str
    """Name of the setting that says the encoding: "format" or "kafka_key"."""
    encoding: str | None
    schema_file: Path | None
    message: str | None

    @property
    def asks_registry(self) -> bool:
        """Whether its schemas come from the registry."""
        return self.encoding in WITH_SCHEMA and self.schema_file is None

    @property
    def is_structured(self) -> bool:
        """Whether a Kafka key is encoded like a value."""
        return self.encoding in WITH_SCHEMA or self.encoding == "json_schema"

    @property
    def is_plain(self) -> bool:
        """Whether rows of files can be sent so: values as JSON, Kafka keys also as text and integers."""
        return self.encoding in {None, "json", "text", "int32", "int64"}

    def fault(self, paths: Iterable[str]) -> str | None:
        """Returns what is wrong with the settings, and with the paths that are read of values; None where they fit."""
        said = f"{self.setting}: {self.encoding}" if self.encoding else f"no {self.setting}"
        if self.schema_file is not None and self.encoding not in WITH_SCHEMA:
            return f"{self.prefix}schema_file needs {self.setting}: avro or protobuf, found {said}"
        if self.message is not None and (self.encoding != "protobuf" or self.schema_file is None):
            return f"{self.prefix}message names a message of {self.prefix}schema_file, with protobuf; found {said}"
        wrong = next((path for path in paths if path != STRING_FIELD), None)
        if self.encoding == "string" and wrong is not None:
            return (
                f"format string: the value is one text, named {STRING_FIELD}, so there is no field {wrong!r}; write "
                f"text: '{{{STRING_FIELD}}}', and leave key and version to the Kafka key and the offset"
            )
        return None

    def fault_without_registry(self, place: str) -> str | None:
        """Returns what is missing where there is no registry; `place` is where the settings stand."""
        if not self.asks_registry:
            return None
        return (
            f"{place}{self.setting}: {self.encoding} needs schemas: set schema_registry.url, or "
            f"{place}{self.prefix}schema_file where records carry no schema id"
        )
