"""The live pipeline as one Ray Serve application: ingestors, embedders, an embedded store's owner, the API.

`build` is what `serve deploy` and RayService name as the import path; `refract run` calls the same.
"""

from pathlib import Path
from typing import Any

from ray import serve

from actors.api import Api
from actors.embedder import EmbedderReplica
from actors.ingestor import DRAIN_S, Ingestor
from actors.monitor import Monitor
from actors.store_owner import StoreOwner
from pipeline.config.load import ConfigTree
from pipeline.config.model import ModelConfig
from pipeline.config.pipeline import BATCHES_PER_EMBEDDER
from pipeline.errors import ConfigError

APP_NAME = "refract"

PLENTY = 10_000
"""max_ongoing_requests of deployments that queue by themselves: at its limit Serve backs off to 16 calls a second."""

QUIET = {"log_level": "WARNING", "enable_access_log": False}


def build(args: dict[str, Any]) -> serve.Application:
    """Builds the application from `args: {config: FILE}` of a Serve config. Raises ConfigError."""
    if set(args) != {"config"}:
        raise ConfigError(f"args: expected exactly `config`, found {sorted(args)}")
    return build_app(ConfigTree.read(Path(args["config"])))


def build_app(source: ConfigTree) -> serve.Application:
    """Builds the application. Raises ConfigError."""
    config = source.load()
    monitor = _deploy(Monitor, ray_actor_options={"num_cpus": 0}).bind()
    embedders = {name: _embedder(name, model).bind(source, name, monitor) for name, model in config.models.items()}
    owner = _deploy(StoreOwner, ray_actor_options={"num_cpus": 0}) if config.store.type == "edge" else None
    store = owner.bind(source, monitor) if owner is not None else None
    ingestor = _deploy(
        Ingestor,
        num_replicas=config.ray.ingestors,
        ray_actor_options={"num_cpus": config.ray.ingestor_cpus},
        graceful_shutdown_timeout_s=DRAIN_S + 5,
        health_check_period_s=2,
        health_check_timeout_s=10,
    ).bind(source, embedders, store, monitor)
    api = Api.options(  # type: ignore[attr-defined]  # serve.ingress returns a class, serve.deployment a Deployment
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=config.api.max_concurrent_requests * 2 + 64,
        logging_config=QUIET,
    )
    application: serve.Application = api.bind(source, embedders, store, monitor, ingestor)
    return application


def _embedder(name: str, model: ModelConfig) -> serve.Deployment:
    scaling: dict[str, Any] = {"num_replicas": model.replicas}
    if model.max_replicas is not None and model.max_replicas > model.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": model.replicas,
                "initial_replicas": max(model.replicas, 1),
                "max_replicas": model.max_replicas,
                "target_ongoing_requests": float(BATCHES_PER_EMBEDDER),
            }
        }
    return _deploy(
        EmbedderReplica,
        name=f"Embedder-{name}",
        ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": model.num_gpus},
        health_check_period_s=5,
        health_check_timeout_s=30,
        **scaling,
    )


def _deploy(cls: type, **options: Any) -> serve.Deployment:
    made: serve.Deployment = serve.deployment(max_ongoing_requests=PLENTY, logging_config=QUIET, **options)(cls)
    return made
