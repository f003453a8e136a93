"""What `refract check` says about a valid configuration: files that cannot be used, and habits that end badly."""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.formats import SchemaRegistryConfig
from pipeline.config.pipeline import Config
from pipeline.config.security import SecurityConfig
from pipeline.config.store import QdrantStoreConfig

_LOOPBACK = ("127.", "localhost", "[::1]", "::1", "auto", "local")


def file_faults(config: Config) -> list[str]:
    """Returns a line for every certificate or key file that cannot be read, has expired or does not fit."""
    security = config.source.security
    faults = _authority_faults("source.security.ca_file", security.ca_file) + _pair_faults("source.security", security)
    if (registry := config.source.schema_registry) is not None:
        faults += _authority_faults("source.schema_registry.ca_file", registry.ca_file)
        faults += _pair_faults("source.schema_registry", registry)
    if isinstance(config.store, QdrantStoreConfig):
        faults += _authority_faults("store.ca_file", config.store.ca_file)
    return faults


def advice(config: Config, *, ray_token: bool) -> list[str]:
    """Returns a line for everything that is allowed but worth a warning.

    Args:
        config: The validated file.
        ray_token: Whether this environment carries a token for Ray's own authentication.
    """
    lines = [
        f"models.{name}.revision: absent, so a new upload to the hub changes the model; pin the commit in production"
        for name, model in config.models.items()
        if model.revision is None and ":" not in model.model and not Path(model.model).exists()
    ]
    used_tasks = {task for topic in config.source.topics.values() for task in topic.tasks}
    lines += [
        f"tasks.{name}: no topic names it, so nothing will be written for it"
        for name in config.tasks.keys() - used_tasks
    ]
    used_models = {task.model for task in config.tasks.values()}
    lines += [f"models.{name}: no task names it" for name in config.models.keys() - used_models]
    batches, enough = config.live_limits.max_concurrent_batches, config.calls_for_all_replicas
    if batches < enough:
        lines.append(
            f"limits.max_concurrent_batches: {batches} calls of each ingestor never keep all of max_replicas busy, so "
            f"autoscaling will not start them; {enough} do, or leave the key out"
        )
    address = config.ray.address
    if address and not address.removeprefix("ray://").startswith(_LOOPBACK) and not ray_token:
        lines.append(
            f"ray.address: {address} is reached without a token; whoever reaches a Ray cluster can run code on it. "
            "Set RAY_AUTH_MODE=token on both sides"
        )
    return sorted(lines)


def _authority_faults(place: str, path: Path | None) -> list[str]:
    if path is None:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        return [f"{place}: {path} holds no PEM certificate"]
    except OSError as error:
        return [f"{place}: {path} cannot be read ({error.strerror})"]
    ends = [str(certificate["notAfter"]) for certificate in context.get_ca_certs()]
    # Bundles carry old authorities along; only when every one has expired can nothing be verified.
    return [f"{place}: {path} expired on {ends[0]}"] if ends and all(map(_is_past, ends)) else []


def _pair_faults(place: str, security: SecurityConfig | SchemaRegistryConfig) -> list[str]:
    if security.cert_file is None or security.key_file is None:
        return []
    password = security.key_password.get_secret_value() if security.key_password else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # The password is a function, so that a missing one fails instead of asking at the terminal.
        context.load_cert_chain(security.cert_file, security.key_file, lambda: password)
    except ssl.SSLError as error:
        reason = "the key does not belong to the certificate" if error.reason == "KEY_VALUES_MISMATCH" else "not usable"
        return [f"{place}.cert_file, key_file: {security.cert_file} and {security.key_file}: {reason}"]
    except OSError as error:
        return [f"{place}.cert_file, key_file: cannot be read ({error.strerror})"]
    # The standard library has no public function that reads a certificate that is not an authority.
    certificate: Mapping[str, Any] = ssl._ssl._test_decode_cert(security.cert_file)  # type: ignore[attr-defined]  # noqa: SLF001 - as said above
    if _is_past(certificate["notAfter"]):
        return [f"{place}.cert_file: {security.cert_file} expired on {certificate['notAfter']}"]
    return []


def _is_past(moment: str) -> bool:
    """Whether a moment, in the words of the ssl module, is over."""
    return ssl.cert_time_to_seconds(moment) < time.time()
