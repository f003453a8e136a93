"""The image and the RayService, read as text: no container engine is needed to see that they keep their promises."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from actors.cluster import required_resources
from pipeline.config.load import VARIABLE, load_config
from pipeline.usecases.serve_config import serve_tree
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


def test_both_stages_start_from_one_pinned_image() -> None:
    images = {of(stage, "FROM")[0].split()[0] for stage in (BUILD, FINAL)}
    assert len(images) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", images.pop())


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    [user] = of(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = [name for name, _ in FINAL[FINAL.index(("USER", user)) + 1 :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_every_install_is_pinned_and_the_final_stage_builds_nothing() -> None:
    installs = [command for command in of(BUILD, "RUN") if "pip" in command]
    assert len(installs) == 2
    for command in installs:
        assert "-c constraints.txt" in command
        assert "--no-cache-dir" in command
    for command in of(FINAL, "RUN"):
        assert not re.search(r"\b(apt-get|apt|pip|gcc|make|curl|wget|git)\b", command)
    assert of(FINAL, "COPY") == ["--from=build /opt/refract /opt/refract"]
    assert not of(BUILD, "ADD") + of(FINAL, "ADD")


def test_all_that_is_copied_exists_and_may_enter_the_build() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for rest in of(BUILD, "COPY") for source in rest.split()[:-1]}
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_no_secret_is_built_in() -> None:
    named = [rest for stage in (BUILD, FINAL) for name in ("ENV", "ARG") for rest in of(stage, name)]
    assert not re.search(r"KEY|PASSWORD|TOKEN|SECRET", " ".join(named), re.IGNORECASE)


def test_health_is_what_the_app_says_and_the_command_is_ours() -> None:
    [check] = of(FINAL, "HEALTHCHECK")
    assert f"http://127.0.0.1:{of(FINAL, 'EXPOSE')[0]}/healthz" in check
    assert of(FINAL, "ENTRYPOINT") == ['["refract"]']
    assert of(FINAL, "CMD") == ['["run", "/etc/refract/config.yaml"]']


# The RayService


def service() -> dict[str, Any]:
    return dict(yaml.safe_load((INFRA / "kuberay.yaml").read_text(encoding="utf-8"))["spec"])


def pods() -> dict[str, Mapping[str, Any]]:
    cluster = service()["rayClusterConfig"]
    groups = {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def variables() -> set[str]:
    """Returns the variables of the configuration that have no default."""
    found = VARIABLE.finditer(CLUSTER.read_text(encoding="utf-8"))
    return {match[1] for match in found if match[2] is None}


def test_what_ray_serve_is_told_is_what_serve_config_prints() -> None:
    config = load_config(CLUSTER, environ=dict.fromkeys(variables(), "x"))
    printed = serve_tree(config, Path("/etc/refract") / CLUSTER.name)
    assert yaml.safe_load(service()["serveConfigV2"]) == printed


def test_ray_is_the_version_the_image_has() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert service()["rayClusterConfig"]["rayVersion"] == pinned[1]


def test_the_workers_have_what_the_configuration_asks_for() -> None:
    config = load_config(CLUSTER, environ=dict.fromkeys(variables(), "x"))
    present = {"CPU": 0.0, "GPU": 0.0}
    for group in service()["rayClusterConfig"]["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        present["CPU"] += group["replicas"] * float(limits["cpu"])
        present["GPU"] += group["replicas"] * float(limits["nvidia.com/gpu"])
    needed = required_resources(config)
    assert {name: present[name] >= needed[name] for name in needed} == {"CPU": True, "GPU": True}


@pytest.mark.parametrize("name", ["head", "gpu"])
def test_a_pod_is_confined_and_gets_its_secrets_from_the_cluster(name: str) -> None:
    pod = pods()[name]
    [container] = pod["containers"]
    [user] = of(FINAL, "USER")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {entry["name"]: "secretKeyRef" in entry["valueFrom"] for entry in container["env"]} == dict.fromkeys(
        variables(), True
    )
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]


@pytest.mark.parametrize("name", ["head", "gpu"])
def test_what_the_image_writes_is_writable_in_the_pod_and_nothing_else_is(name: str) -> None:
    pod = pods()[name]
    kinds = {volume["name"]: next(kind for kind in volume if kind != "name") for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: kinds[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    writable = {path for path, kind in mounts.items() if kind == "emptyDir"}
    [volumes] = of(FINAL, "VOLUME")
    assert writable - {"/dev/shm"} == set(yaml.safe_load(volumes))  # noqa: S108 - the pods' own
    homes = dict(re.findall(r"(\w+)=(\S+)", of(FINAL, "ENV")[0]))
    for variable in ("HOME", "HF_HOME"):
        assert any(PurePosixPath(homes[variable]).is_relative_to(path) for path in writable)
