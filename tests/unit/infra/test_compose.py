"""The stack of infra/compose.yaml, without a container engine: valid, pinned, closed, and made of files that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions

from pipeline.config.load import VARIABLE, load_config
from pipeline.config.store import QdrantStoreConfig
from pipeline.usecases.demo import RATE
from tests.config_trees import CONFIGS, ROOT
from tests.unit.infra.files import BUILD, FINAL, INFRA, of

TEXT = (INFRA / "compose.yaml").read_text(encoding="utf-8")
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = ("app", "demo-data")
CONFIG = load_config(CONFIGS / "stack.yaml", environ={"REFRACT_API_KEY": "k"})


def interpolated(value: str) -> str:
    """Returns a value as Compose does where the environment is empty."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def mounts(service: str) -> dict[str, str]:
    """Returns what is mounted, by its place in the container; read-only or not."""
    volumes = [entry.split(":") for entry in SERVICES[service].get("volumes", ())]
    return {target: source for source, target, *_ in volumes}


def published(service: str) -> dict[int, str]:
    """Returns the address on this machine of each published port."""
    entries = [entry.split(":") for entry in SERVICES[service].get("ports", ())]
    return {int(inside): f"{host}:{port}" for host, port, inside in entries}


def test_it_is_valid_by_the_compose_specification() -> None:
    stack = PyOptions(apply_merge=True).from_yaml(TEXT)
    stack.validate()
    assert set(stack.service_names()) == set(SERVICES)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("healthcheck:", "helthcheck:"), ("condition: service_healthy", "condition: healthy"), ("9092:9092", "nope:9092")],
)
def test_what_is_invalid_is_refused(right: str, wrong: str) -> None:
    assert right in TEXT
    with pytest.raises(ValueError, match=r"extension key|unknown variant|error parsing"):
        PyOptions(apply_merge=True).from_yaml(TEXT.replace(right, wrong)).validate()


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str) -> None:
    _, _, tag = SERVICES[service]["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(-\w+)?", tag) or (service in OURS and tag == "1")


@pytest.mark.parametrize("service", SERVICES)
def test_every_port_is_published_to_this_machine_alone(service: str) -> None:
    assert all(address.startswith("127.0.0.1:") for address in published(service).values())


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_confined(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert not SERVICES[service].get("privileged")
    if service in OURS:
        assert SERVICES[service]["read_only"] is True


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"demo-data"}))
def test_every_server_has_a_health_check_and_comes_back(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"


def test_who_waits_for_health_waits_for_a_service_that_has_a_check() -> None:
    waiting = [
        (name, other, how["condition"])
        for name, service in SERVICES.items()
        if isinstance(service.get("depends_on"), dict)
        for other, how in service["depends_on"].items()
    ]
    assert {("app", "kafka", "service_healthy"), ("app", "qdrant", "service_healthy")} <= set(waiting)
    assert all("healthcheck" in SERVICES[other] for _, other, condition in waiting if condition == "service_healthy")


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists_and_is_read_only_or_a_volume(service: str) -> None:
    for entry in SERVICES[service].get("volumes", ()):
        source, _, *options = entry.split(":")
        if source.startswith("."):
            assert (INFRA / source).resolve().exists(), entry
            assert options == ["ro"], entry
        else:
            assert source in STACK["volumes"]


def test_every_volume_is_used() -> None:
    assert {source for name in SERVICES for source in mounts(name).values() if not source.startswith(".")} == set(
        STACK["volumes"]
    )


# The app


@pytest.mark.parametrize("service", OURS)
def test_the_image_is_built_from_our_dockerfile_with_the_extras_that_the_configuration_needs(service: str) -> None:
    build = SERVICES[service]["build"]
    assert (INFRA / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(INFRA / "Dockerfile")
    extras = set(build["args"]["EXTRAS"].split(","))
    [model] = CONFIG.models.values()
    assert (model.model, model.adapter) == ("packaged:all-MiniLM-L6-v2", "packaged:demo")
    assert extras == {"minilm", "adapters"}
    assert [rest.partition("=")[0] for rest in of(BUILD, "ARG")] == list(build["args"])


@pytest.mark.parametrize("service", OURS)
def test_the_configuration_is_where_the_image_looks_and_gets_its_variables(service: str) -> None:
    [command] = of(FINAL, "CMD")
    path = yaml.safe_load(command)[1]
    source = mounts(service)[path]
    assert (INFRA / source).resolve() == CONFIGS / "stack.yaml"
    text = (INFRA / source).read_text(encoding="utf-8")
    needed = {match[1] for match in VARIABLE.finditer(text) if match[2] is None}
    assert needed <= set(SERVICES[service]["environment"])


def test_the_app_writes_only_where_it_may() -> None:
    [volumes] = of(FINAL, "VOLUME")
    places = [*SERVICES["app"]["tmpfs"], *mounts("app")]
    assert set(yaml.safe_load(volumes)) <= set(places)


def test_it_listens_where_the_port_is_published_and_its_check_asks() -> None:
    assert CONFIG.api.host == "0.0.0.0"  # noqa: S104 - inside a container
    assert list(published("app")) == [CONFIG.api.port]
    assert f"http://127.0.0.1:{CONFIG.api.port}/readyz" in SERVICES["app"]["healthcheck"]["test"][-1]


def test_it_is_allowed_more_time_to_end_than_an_ingestor_takes() -> None:
    from actors.ingestor import DRAIN_S  # noqa: PLC0415 - Ray

    assert int(SERVICES["app"]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_the_demo_data_is_what_the_demo_sends_to_the_topic_that_the_app_reads() -> None:
    verb, config, file, *options = SERVICES["demo-data"]["command"]
    assert verb == "produce"
    assert config in mounts("demo-data")
    assert (INFRA / mounts("demo-data")[file]).resolve() == ROOT / "pipeline/demo/tickets.jsonl"
    assert options[0] == "--create"
    assert float(options[options.index("--rate") + 1]) <= RATE
    demo = load_config(CONFIGS / "demo.yaml", environ={})
    assert CONFIG.source.topics == demo.source.topics
    assert CONFIG.tasks == demo.tasks
    assert CONFIG.models == demo.models


# The others


def test_the_broker_announces_itself_where_the_app_and_this_machine_reach_it() -> None:
    environment = SERVICES["kafka"]["environment"]
    announced = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(entry.split("://") for entry in environment["KAFKA_LISTENERS"].split(","))
    assert CONFIG.source.bootstrap_servers == [announced["INSIDE"]]
    assert published("kafka") == {9092: f"127.0.0.1:{announced['OUTSIDE'].partition(':')[2]}"}
    assert {name: listening[name].rpartition(":")[2] for name in announced} == {
        name: address.rpartition(":")[2] for name, address in announced.items()
    }
    check = SERVICES["kafka"]["healthcheck"]["test"][-1]
    assert check.endswith(announced["INSIDE"].replace("kafka:", "localhost/"))
    assert environment["KAFKA_LOG_DIRS"] in mounts("kafka")


def test_the_broker_is_the_version_that_the_tests_run() -> None:
    pinned = re.search(r"<kafka.version>([^<]+)<", (INFRA / "pom.xml").read_text(encoding="utf-8"))
    assert pinned is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{pinned[1]}"


def test_the_store_is_the_service_by_its_grpc_port() -> None:
    assert isinstance(CONFIG.store, QdrantStoreConfig)
    assert CONFIG.store.url == "http://qdrant:6334"
    version = re.search(r"v(\d+)\.(\d+)", SERVICES["qdrant"]["image"])
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (1, 19)


def test_prometheus_scrapes_the_services_with_the_apps_key() -> None:
    config = yaml.safe_load((INFRA / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    [target] = [target for found in jobs["refract"]["static_configs"] for target in found["targets"]]
    assert target == f"app:{CONFIG.api.port}"
    for job in jobs.values():
        for found in job["static_configs"]:
            assert {name.partition(":")[0] for name in found["targets"]} <= set(SERVICES) | {"localhost"}
    [mounted] = SERVICES["prometheus"]["configs"]
    assert jobs["refract"]["authorization"]["credentials_file"] == mounted["target"]
    key = STACK["configs"][mounted["source"]]["content"]
    assert key == SERVICES["app"]["environment"]["REFRACT_API_KEY"]
    assert interpolated(key) in (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    folder = Path(_option("prometheus", "--config.file")).parent
    assert {str(folder / name) for name in [*config["rule_files"], "prometheus.yaml"]} <= set(mounts("prometheus"))


def test_grafana_finds_its_source_and_its_dashboards_where_they_are_mounted() -> None:
    folder = INFRA / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((folder / "dashboards" / "refract.yaml").read_text(encoding="utf-8"))["providers"]
    assert provider["options"]["path"] in mounts("grafana")
    assert (INFRA / mounts("grafana")[provider["options"]["path"]]).resolve() == INFRA / "grafana" / "dashboards"
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (INFRA / "grafana" / "dashboards" / home.name).exists()


def _option(service: str, name: str) -> str:
    found: list[str] = [part.partition("=")[2] for part in SERVICES[service]["command"] if part.startswith(f"{name}=")]
    return found[0]
