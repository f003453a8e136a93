"""Joins a Ray cluster, or starts one on this machine."""

import contextlib
import io
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError, TransientError

PRELOAD = "RAY_preload_python_modules"

OBJECT_STORE_BYTES = 1 << 29
"""Shared memory of a cluster started here: many times what is in flight between the actors."""


def quieten() -> None:
    """Keeps Ray's own chatter in its log files. Importing Serve undoes it."""
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(
    address: str | None, namespace: str, needed: Mapping[str, float], *, log_to_driver: bool, preload: str = ""
) -> None:
    """Joins the cluster at an address, or starts one here that has the CPUs needed.

    A cluster started here imports `preload`, a module, in its worker processes as soon as they are up.

    Raises TransientError: it cannot be reached or started.
    """
    # Nothing is sent anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quieten()
    try:
        if address:
            ray.init(address, namespace=namespace, logging_level=logging.ERROR, log_to_driver=log_to_driver)
            return
        with _preloaded(preload):
            # "local": without it Ray would join a cluster that `ray start` made on this machine.
            ray.init(
                "local",
                num_cpus=max(math.ceil(needed.get("CPU", 0)), os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                namespace=namespace,
                logging_level=logging.ERROR,
                log_to_driver=log_to_driver,
            )
    except Exception as error:  # noqa: BLE001 - a slow start of Ray's own processes is a bare Exception
        where = f"at {address!r} (ray.address, or --address)" if address else "on this machine"
        raise TransientError(f"Ray {where} cannot be reached or started: {type(error).__name__}: {error}") from None


@contextmanager
def _preloaded(module: str) -> Iterator[None]:
    """The raylet reads this once, when it starts; another cluster of this process may want nothing of it."""
    if not module or PRELOAD in os.environ:
        yield
        return
    os.environ[PRELOAD] = module
    try:
        yield
    finally:
        del os.environ[PRELOAD]


def required_resources(config: Config) -> dict[str, float]:
    """Returns the CPUs and GPUs that must be free for every replica to start."""
    models = config.models.values()
    return {
        "CPU": config.ray.ingestors * config.ray.ingestor_cpus
        + sum(model.replicas * model.num_cpus for model in models),
        "GPU": sum(model.replicas * model.num_gpus for model in models),
    }


def check_resources(needed: Mapping[str, float], keys: str) -> None:
    """Refuses what the cluster will never have, instead of waiting without end: raises ConfigError.

    `keys` tells which of the configuration add up to it, with {resource} for num_cpus or num_gpus.
    """
    present = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
    for resource, wanted in needed.items():
        if wanted > present.get(resource, 0):
            keys = keys.replace("{resource}", f"num_{resource.lower()}s")
            raise ConfigError(
                f"the configuration asks for {wanted:g} {resource}s in all ({keys}), the cluster has "
                f"{present.get(resource, 0):g}: lower them, or add nodes"
            )


@contextmanager
def cluster(address: str | None, namespace: str, needed: Mapping[str, float]) -> Iterator[None]:
    """Joins the cluster at an address, or starts one here; leaves or ends it afterwards.

    Raises:
        TransientError: it cannot be reached or started.
        ConfigError: it will never have the resources needed.
    """
    connect(address, namespace, needed, log_to_driver=False)
    try:
        check_resources(needed, "models.*.{resource}, one of each actor")
        yield
    finally:
        # While Ray ends it prints its own end as a series of failures, on either stream.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            ray.shutdown()


def root_cause(message: str) -> str:
    """Returns the line of an actor's failure that names our error; the whole text where no line does."""
    lines = [line.strip() for line in message.splitlines() if "pipeline.errors." in line]
    return lines[-1].split("pipeline.errors.", 1)[-1] if lines else message.strip()
