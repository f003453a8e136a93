"""What `refract check` finds about formats: packages, schema files, the registry, and paths that no schema has."""

from contextlib import AbstractContextManager
from typing import Protocol

from pipeline.config.pipeline import Config
from pipeline.config.source import TopicConfig
from pipeline.errors import ConfigError, RecordError
from pipeline.records.formats import fields_known, parsers_of, registry_of
from pipeline.records.schemas.fields import Choices, path_faults
from pipeline.records.schemas.registry import SchemaRegistry


class Findings(Protocol):
    """Where what is found goes."""

    advice: list[str]
    skipped: list[str]

    def catching(self, what: str = "") -> AbstractContextManager[None]:
        """Turns an error of the block into faults, and continues."""


def check_formats(config: Config, found: Findings, *, offline: bool) -> None:
    """Checks how every topic is read. Asks the registry, unless `offline`, for the schemas of the topics' names."""
    registry = registry_of(config.source)
    if registry is not None and offline:
        found.skipped.append("schema registry (--offline)")
    for name, topic in config.source.topics.items():
        place = f"source.topics.{name}"
        with found.catching(place):
            parsers_of(topic, config.limits, registry)
            if topic.schema_file is not None:
                choices = fields_known(topic, config.limits, registry, None)
                _check_paths(topic, choices, str(topic.schema_file), found)
            elif registry is not None and topic.values_as.asks_registry and not offline:
                _check_registered(config, name, registry, found)


def _check_registered(config: Config, name: str, registry: SchemaRegistry, found: Findings) -> None:
    topic, subject = config.source.topics[name], f"{name}-value"
    schema = registry.latest(subject)
    if schema is None:
        found.advice.append(
            f"source.topics.{name}: the registry has no subject {subject}, as Confluent's serializers name it, so "
            "the topic's paths could not be checked"
        )
        return
    what = f"the newest schema of {subject}"
    try:
        choices = fields_known(topic, config.limits, registry, schema)
    except RecordError as error:
        raise ConfigError(f"{what}: {error.detail}") from None
    _check_paths(topic, choices, what, found)


def _check_paths(topic: TopicConfig, choices: Choices | None, what: str, found: Findings) -> None:
    """Raises ConfigError for paths without which no record can be stored; others are advice."""
    findings = list(path_faults(topic, choices, what)) if choices is not None else []
    found.advice += [message for needed, message in findings if not needed]
    if missing := [message for needed, message in findings if needed]:
        raise ConfigError("\n".join(missing))
