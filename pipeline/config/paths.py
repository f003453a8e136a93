r"""Field paths: where a value is inside a record, as `id`, `customer.name` or `"service.name"`.

Dots separate names. A name with a dot of its own is put in double quotes, or its dot is escaped:
`"service.name"` and `service\.name` are one name, `attributes."service.name"` are two. Without
either, a field whose whole name is the path wins over a nested one.
"""

import re

_NAME = re.compile(r'"((?:[^"\\]|\\.)+)"(?=\.|\Z)|((?:\\.|[^.])+)', re.DOTALL)
_ESCAPED = re.compile(r'\\([.\\"])')


def split_path(path: str) -> tuple[str, ...]:
    """Returns the names of a field path, outermost first."""
    if '"' not in path and "\\" not in path:
        return tuple(path.split("."))
    return tuple(_ESCAPED.sub(r"\1", match[1] or match[2]) for match in _NAME.finditer(path))


def flat_name(path: str) -> str:
    """Returns the one name that a field with the whole path as its name would have."""
    return ".".join(split_path(path))


def top_names(path: str) -> tuple[str, ...]:
    """Returns the top-level fields at which a path may begin: the one of its whole name first."""
    names = split_path(path)
    return (names[0],) if len(names) == 1 else (".".join(names), names[0])
