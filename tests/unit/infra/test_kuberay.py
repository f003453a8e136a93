"""The Kubernetes manifests: valid by their schemas, and keeping what docs/operating.md promises."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from actors.cluster import required_resources
from actors.ingestor import CLUSTER_NAME, DRAIN_S
from pipeline.config.load import load_config
from pipeline.config.pipeline import Config
from pipeline.sources.group.member import member_name
from pipeline.usecases.serve_config import serve_tree
from tests.config_trees import ROOT
from tests.unit.infra.files import CLUSTER, FINAL, documents, of, pinned, variables

KUBERNETES = "1.29"
MANIFESTS = documents("kuberay.yaml")
[SERVICE] = [found for found in MANIFESTS if found["kind"] == "RayService"]
RAY: dict[str, Any] = SERVICE["spec"]["rayClusterConfig"]
GROUPS = {"head": RAY["headGroupSpec"]} | {group["groupName"]: group for group in RAY["workerGroupSpecs"]}
RAY_PODS = {name: group["template"] for name, group in GROUPS.items()}

OWN_KEYS: dict[str, set[str]] = {
    "": {"upgradeStrategy", "serveConfigV2", "rayClusterConfig"},
    "upgradeStrategy": {"type"},
    "rayClusterConfig": {
        "rayVersion",
        "authOptions",
        "gcsFaultToleranceOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "rayClusterConfig.authOptions": {"mode"},
    "rayClusterConfig.gcsFaultToleranceOptions": {"redisAddress", "redisPassword"},
    "rayClusterConfig.autoscalerOptions": {
        "version",
        "upscalingMode",
        "idleTimeoutSeconds",
        "resources",
        "securityContext",
        "volumeMounts",
    },
    "rayClusterConfig.headGroupSpec": {"rayStartParams", "template"},
}
"""Every key of KubeRay's that is used, read in its API, v1.6.1. A misspelt one would be dropped without a word."""

WORKER_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def all_of(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in MANIFESTS if found["kind"] == kind}


def pods() -> dict[str, Mapping[str, Any]]:
    """Returns the template of every pod, KubeRay's and our own, by a name."""
    return RAY_PODS | {name: found["spec"]["template"] for name, found in all_of("StatefulSet").items()}


def config() -> Config:
    return load_config(CLUSTER, environ=dict.fromkeys(variables(), "x"))


# Valid


@pytest.mark.parametrize("manifest", [found for found in MANIFESTS if found is not SERVICE], ids=lambda m: m["kind"])
def test_a_manifest_is_valid_by_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", RAY_PODS)
def test_a_pod_of_ray_is_valid_by_the_schema_of_kubernetes(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": RAY_PODS[name]["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    wrong = copy.deepcopy(pod)
    wrong["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_only_known_keys_of_kuberay_are_set() -> None:
    assert (SERVICE["apiVersion"], SERVICE["spec"].keys() >= {"rayClusterConfig"}) == ("ray.io/v1", True)
    for path, known in OWN_KEYS.items():
        section = SERVICE["spec"]
        for name in filter(None, path.split(".")):
            section = section[name]
        assert set(section) == known, path
    for group in RAY["workerGroupSpecs"]:
        assert set(group) == WORKER_KEYS


def test_the_service_is_valid_by_the_schema_of_kuberay() -> None:
    schemas = sorted((ROOT / "var" / "kuberay").glob("rayservices-*.yaml"))
    if not schemas:
        pytest.skip("KubeRay's schema is not here; infra/kuberay.sh fetch gets it")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(schemas[-1].read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe one
    [schema] = [found["schema"]["openAPIV3Schema"] for found in definition["spec"]["versions"] if found["name"] == "v1"]
    closed = _closed(schema["properties"]["spec"])
    validator = jsonschema.Draft202012Validator(closed)
    assert [error.message for error in validator.iter_errors(SERVICE["spec"])] == []
    assert list(validator.iter_errors({**SERVICE["spec"], "upgradeStrategie": {}}))


def _closed(node: Any) -> Any:
    """Returns the schema so that an unknown key is an error, and with quantities as numbers or text."""
    if isinstance(node, list):
        return [_closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {}
    result = {name: _closed(part) for name, part in node.items()}
    if "properties" in result and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def test_all_of_it_is_in_one_namespace() -> None:
    assert {found["metadata"]["namespace"] for found in MANIFESTS} == {"refract"}


# Ray and Serve


def test_what_ray_serve_is_told_is_what_serve_config_prints() -> None:
    printed = serve_tree(config(), Path("/etc/refract") / CLUSTER.name)
    assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"]) == printed


def test_ray_is_the_version_the_image_has() -> None:
    assert RAY["rayVersion"] == pinned("ray")


def _resources(count: str) -> dict[str, float]:
    present = {"CPU": 0.0, "GPU": 0.0}
    for group in RAY["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        present["CPU"] += group[count] * float(limits["cpu"])
        present["GPU"] += group[count] * float(limits["nvidia.com/gpu"])
    return present


@pytest.mark.parametrize("count", ["replicas", "minReplicas"])
def test_the_workers_have_what_the_configuration_asks_for(count: str) -> None:
    needed, present = required_resources(config()), _resources(count)
    assert {name: present[name] >= needed[name] for name in needed} == {"CPU": True, "GPU": True}


def test_the_autoscaler_may_add_what_all_embedders_need_and_no_more() -> None:
    assert RAY["enableInTreeAutoscaling"] is True
    needed = required_resources(config())
    for model in config().models.values():
        assert model.max_replicas is not None
        more = model.max_replicas - model.replicas
        needed = {"CPU": needed["CPU"] + more * model.num_cpus, "GPU": needed["GPU"] + more * model.num_gpus}
    most = _resources("maxReplicas")
    assert needed["CPU"] <= most["CPU"]
    assert needed["GPU"] == most["GPU"]
    for group in RAY["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # Autoscaler v2 starts pods itself: KubeRay refuses one with a restart policy of its own.
    assert RAY["autoscalerOptions"]["version"] == "v2"
    assert all("restartPolicy" not in pod["spec"] for pod in RAY_PODS.values())


def test_rays_services_ask_for_a_token() -> None:
    assert RAY["authOptions"] == {"mode": "token"}


def test_the_probes_path_needs_no_token() -> None:
    from ray.dashboard import http_server_agent  # noqa: PLC0415 - Ray's own, only here

    for pod in RAY_PODS.values():
        [container] = pod["spec"]["containers"]
        for name in ("livenessProbe", "readinessProbe"):
            command = " ".join(container[name]["exec"]["command"])
            path = command.partition(":52365")[2].partition("'")[0]
            assert path in Path(http_server_agent.__file__).read_text(encoding="utf-8")
            assert container[name]["timeoutSeconds"] * 2 <= container[name]["periodSeconds"]


def test_two_clusters_never_read_under_one_static_id() -> None:
    assert SERVICE["spec"]["upgradeStrategy"] == {"type": "None"}
    # Whoever chooses another strategy: KubeRay names each cluster in this variable, and the ids hold that name.
    assert CLUSTER_NAME == "RAY_CLUSTER_NAME"
    assert member_name(0, "a", "refract-old") != member_name(0, "b", "refract-new")


def test_a_pod_has_time_to_commit_before_it_is_killed() -> None:
    for pod in RAY_PODS.values():
        assert pod["spec"]["terminationGracePeriodSeconds"] > DRAIN_S + 5


# Confined


@pytest.mark.parametrize("name", pods())
def test_a_pod_is_confined(name: str) -> None:
    pod = pods()[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    contexts = [container["securityContext"] for container in pod["containers"]]
    for context in [*contexts, RAY["autoscalerOptions"]["securityContext"]]:
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("name", pods())
def test_a_container_has_an_image_with_a_version_bounded_memory_and_probes(name: str) -> None:
    for container in pods()[name]["spec"]["containers"]:
        _, colon, tag = container["image"].rpartition(":")
        assert colon
        assert tag != "latest"
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert {"livenessProbe", "readinessProbe"} <= set(container)


@pytest.mark.parametrize("name", RAY_PODS)
def test_the_user_is_the_images_and_secrets_come_from_the_cluster(name: str) -> None:
    pod = RAY_PODS[name]["spec"]
    [container] = pod["containers"]
    [user] = of(FINAL, "USER")
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert {entry["name"]: "secretKeyRef" in entry["valueFrom"] for entry in container["env"]} == dict.fromkeys(
        variables(), True
    )


@pytest.mark.parametrize("name", RAY_PODS)
def test_what_the_image_writes_is_writable_in_the_pod_and_nothing_else_is(name: str) -> None:
    pod = RAY_PODS[name]["spec"]
    kinds = {volume["name"]: next(kind for kind in volume if kind != "name") for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: kinds[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    writable = {path for path, kind in mounts.items() if kind == "emptyDir"}
    [volumes] = of(FINAL, "VOLUME")
    assert writable - {"/dev/shm"} == set(yaml.safe_load(volumes))  # noqa: S108 - the pods' own
    homes = dict(word.split("=", 1) for word in of(FINAL, "ENV")[0].split())
    for variable in ("HOME", "HF_HOME"):
        assert any(PurePosixPath(homes[variable]).is_relative_to(path) for path in writable)
    extra = RAY["autoscalerOptions"]["volumeMounts"]
    assert {mount["name"] for mount in extra} <= set(kinds)


# Redis, disruptions, the network


def test_the_heads_state_is_in_a_redis_that_keeps_it() -> None:
    options = RAY["gcsFaultToleranceOptions"]
    host, _, port = options["redisAddress"].partition(":")
    service = all_of("Service")[host]
    assert [entry["port"] for entry in service["spec"]["ports"]] == [int(port)]
    redis = all_of("StatefulSet")[host]["spec"]
    assert service["spec"]["selector"] == redis["template"]["metadata"]["labels"] == redis["selector"]["matchLabels"]
    [container] = redis["template"]["spec"]["containers"]
    [variable] = container["env"]
    assert variable["valueFrom"] == options["redisPassword"]["valueFrom"]
    command = container["command"][-1]
    assert "--appendonly yes" in command
    assert f'--requirepass "${variable["name"]}"' in command
    [claim] = redis["volumeClaimTemplates"]
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        claim["metadata"]["name"]: "/data"
    }


def test_a_drained_node_takes_one_worker_at_a_time_and_is_never_held_up_for_good() -> None:
    [budget] = all_of("PodDisruptionBudget").values()
    selected = [name for name, pod in pods().items() if _selects(budget["spec"]["selector"], pod)]
    assert selected == [group["groupName"] for group in RAY["workerGroupSpecs"]]
    # Of pods whose controller has no `scale`, Kubernetes takes an absolute minAvailable and nothing else.
    assert set(budget["spec"]) == {"minAvailable", "selector"}
    assert budget["spec"]["minAvailable"] == sum(group["minReplicas"] for group in RAY["workerGroupSpecs"]) - 1


def _selects(selector: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    return bool(selector["matchLabels"].items() <= pod["metadata"]["labels"].items())


def _admitted(policy: str) -> Iterator[tuple[dict[str, Any], set[int]]]:
    """Yields who may come and by which ports; no port is every one."""
    for rule in all_of("NetworkPolicy")[policy]["spec"]["ingress"]:
        for peer in rule["from"]:
            yield peer, {entry["port"] for entry in rule.get("ports", ())}


def test_every_pod_is_behind_a_policy() -> None:
    policies = all_of("NetworkPolicy").values()
    for pod in pods().values():
        assert [policy for policy in policies if _selects(policy["spec"]["podSelector"], pod)]
    assert all("Ingress" in policy["spec"]["policyTypes"] for policy in policies)


def test_nobody_is_admitted_without_a_label() -> None:
    for policy in all_of("NetworkPolicy"):
        for peer, _ in _admitted(policy):
            assert peer["podSelector"]["matchLabels"]


def test_the_dashboard_is_for_the_operator_and_the_api_for_clients() -> None:
    ports = {port["name"]: port["containerPort"] for port in RAY_PODS["head"]["spec"]["containers"][0]["ports"]}
    admitted = {next(iter(peer["podSelector"]["matchLabels"])): found for peer, found in _admitted("refract")}
    assert admitted == {
        "app": set(),
        "app.kubernetes.io/component": {ports["dashboard"], 52365, config().api.port},
        "refract-client": {config().api.port},
    }
    assert ports["serve"] == config().api.port


def test_redis_is_for_the_app_alone_and_goes_nowhere() -> None:
    [(peer, ports)] = _admitted("refract-redis")
    assert _selects(peer["podSelector"], RAY_PODS["head"])
    assert ports == {6379}
    assert "Egress" in all_of("NetworkPolicy")["refract-redis"]["spec"]["policyTypes"]
    assert "egress" not in all_of("NetworkPolicy")["refract-redis"]["spec"]
