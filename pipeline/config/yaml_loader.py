"""Safe YAML without its quiet traps: what a person would misread is refused, with the line and the fix."""

from typing import Any

import yaml

from pipeline.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys, aliases, and the scalars YAML 1.1 reads as something else."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses aliases: nested ones multiply until memory ends."""
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call] # PyYAML's stubs
            raise ConfigError(f"line {line}: YAML anchors and aliases are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's
        """Refuses keys that appear twice or are not strings."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConfigError(f"{_line(key_node)}: key {key!r} is not a string; quote it")
            if key in seen:
                raise ConfigError(f"{_line(key_node)}: key {key!r} appears twice")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_plain_bool(self, node: yaml.ScalarNode) -> bool:
        """Refuses `no`, `yes`, `on` and `off`: whether the word or the truth value was meant, nobody can tell."""
        if node.value.lower() not in {"true", "false"}:
            raise ConfigError(f"{_line(node)}: write true or false, or quote the word: {node.value!r}")
        return bool(self.construct_yaml_bool(node))

    def construct_plain_int(self, node: yaml.ScalarNode) -> int:
        """Refuses `010` (octal eight) and `1:30` (sexagesimal ninety)."""
        digits = node.value.lstrip("+-")
        if ":" in digits or (len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()):
            raise ConfigError(
                f"{_line(node)}: {node.value} is not read as a decimal number; write it plainly or quote it"
            )
        return int(self.construct_yaml_int(node))

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        """Refuses unquoted dates: no key of ours is one, so a text was meant."""
        raise ConfigError(f"{_line(node)}: {node.value} would be read as a date; quote it")


StrictLoader.add_constructor("tag:yaml.org,2002:bool", StrictLoader.construct_plain_bool)
StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_plain_int)
StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", StrictLoader.construct_date)


def load_yaml(text: str) -> Any:
    """Returns the one document in `text`.

    Raises:
        ConfigError: with the line and what is wrong; never with the content of the file.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{place}is not valid YAML ({error.problem or error.context})") from None
    except yaml.YAMLError:
        raise ConfigError("is not valid YAML (it holds characters that are not text)") from None
    except RecursionError:
        raise ConfigError("is nested too deeply") from None
    except ValueError:
        raise ConfigError("holds a value that YAML cannot read") from None


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
