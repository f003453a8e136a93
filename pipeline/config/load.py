"""Reads a YAML file into a `Config`: safe YAML, `${NAME}` from the environment, messages that name the fix."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.explain import explain
from pipeline.config.pipeline import Config
from pipeline.config.yaml_loader import load_yaml
from pipeline.errors import ConfigError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""`${NAME}` or `${NAME:-default}`."""

SECRETS = (
    "source.security.password",
    "source.security.key_password",
    "source.security.oauth_client_secret",
    "source.schema_registry.password",
    "source.schema_registry.bearer_token",
    "source.schema_registry.key_password",
    "store.api_key",
    "api.api_key",
)
_SECRET_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}|")


def load_config(path: Path, *, environ: Mapping[str, str] | None = None) -> Config:
    """Reads, expands and validates a configuration file.

    `${NAME}` and `${NAME:-default}` in string values are replaced from `environ` (default: the
    process's). Relative paths stay relative to the working directory.

    Raises:
        ConfigError: one line per fault, each with the file, the key and what was expected.
    """
    return parse_config(read_tree(path), environ=os.environ if environ is None else environ, origin=str(path))


def read_tree(path: Path) -> dict[str, Any]:
    """Returns the file as plain mappings and lists, variables not yet replaced.

    Raises ConfigError, also for a secret that stands in the file itself: the tree as written is
    handed to Ray's actors, where the state API and the dashboard show it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        tree = load_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys {', '.join(Config.model_fields)}")
    if written := [place for place in SECRETS if _holds_text(tree, place)]:
        raise ConfigError(
            "\n".join(
                f"{path}: {place}: the secret is written in the file, where others will read it; put it into an "
                f"environment variable and write ${{NAME}}"
                for place in written
            )
        )
    return tree


def _holds_text(tree: Mapping[str, Any], place: str) -> bool:
    """Whether a secret's place holds anything but one variable without a default, or nothing."""
    value: Any = tree
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return isinstance(value, str) and _SECRET_VARIABLE.fullmatch(value) is None


def parse_config(tree: Mapping[str, Any], *, environ: Mapping[str, str], origin: str) -> Config:
    """Validates an already loaded tree; `origin` names it in messages. Raises ConfigError."""
    missing: list[str] = []
    expanded = _expand(tree, environ, "", missing)
    if missing:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in missing))
    try:
        return Config.model_validate(expanded)
    except ValidationError as error:
        # `from None`: the validation error keeps the values it refused, and one of them may be a secret.
        raise ConfigError("\n".join(explain(origin, detail) for detail in error.errors(include_url=False))) from None


def _expand(value: Any, environ: Mapping[str, str], place: str, missing: list[str]) -> Any:
    """Returns the tree with its variables replaced; adds a line to `missing` for each that has no value."""
    if isinstance(value, Mapping):
        return {
            key: _expand(item, environ, f"{place}.{key}" if place else str(key), missing) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_expand(item, environ, f"{place}.{index}", missing) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        # As in a shell, `:-` also stands in for a variable that is set and empty.
        found: str | None = environ.get(name, match.group(2)) or match.group(2)
        if found is None and name not in environ:
            missing.append(f"{place}: the environment variable {name} is not set")
        return found or ""

    return VARIABLE.sub(replace, value)


@dataclass(frozen=True)
class ConfigTree:
    """A configuration on its way to an actor: as written, with `${NAME}` still standing for secrets.

    Each actor fills in the variables from its own environment. So no secret is ever an actor's
    argument, where Ray's state API and dashboard would show it.
    """

    tree: Mapping[str, Any]
    origin: str

    @classmethod
    def read(cls, path: Path) -> "ConfigTree":
        """Reads the file. Raises ConfigError."""
        return cls(read_tree(path), str(path))

    def load(self) -> Config:
        """Returns the validated configuration. Raises ConfigError."""
        return parse_config(self.tree, environ=os.environ, origin=self.origin)
