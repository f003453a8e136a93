"""What the files of infra/ say, for the tests that hold them against each other and against the code."""

import re
from typing import Any

import yaml

from pipeline.config.load import VARIABLE
from tests.config_trees import CONFIGS, ROOT

INFRA = ROOT / "infra"
CLUSTER = CONFIGS / "cluster.yaml"
Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Returns the Dockerfile's instructions by stage, continued lines joined."""
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, lines)):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(rest.split())))
    return found


BUILD, FINAL = stages()


def of(stage: list[Instruction], name: str) -> list[str]:
    return [rest for found, rest in stage if found == name]


def documents(name: str) -> list[dict[str, Any]]:
    """Returns the documents of a YAML file of infra/."""
    return [dict(found) for found in yaml.safe_load_all((INFRA / name).read_text(encoding="utf-8"))]


def variables() -> set[str]:
    """Returns the variables of configs/cluster.yaml that have no default."""
    found = VARIABLE.finditer(CLUSTER.read_text(encoding="utf-8"))
    return {match[1] for match in found if match[2] is None}


def pinned(package: str) -> str:
    """Returns the version of a package in constraints.txt."""
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]
