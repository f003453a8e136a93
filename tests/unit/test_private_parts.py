"""Parts of libraries that are not promised to stay: each use in the product is named here, and must exist.

A new version of a library fails here first. The upper bounds in pyproject.toml belong to this list.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from pkgutil import resolve_name
from typing import Any

import pytest

from tests.config_trees import ROOT

INTERNALS = "pipeline/sources/group/consumer_internals.py"
CONNECTION = "pipeline/sources/client/connection.py"
INFLATE = "pipeline/sources/client/inflate.py"
NAMES = "pipeline/sources/client/header_names.py"
KERNELS = "pipeline/engine/cpu_kernels.py"

CONSUMER = "kafka:KafkaConsumer"
COORDINATOR = "kafka.coordinator.consumer:ConsumerCoordinator"
MANAGER = "kafka.net.manager:KafkaConnectionManager"
CLUSTER = "kafka.cluster:ClusterMetadata"

PRIVATE = [
    (INTERNALS, CONSUMER, "_manager"),
    (INTERNALS, CONSUMER, "_cluster"),
    (INTERNALS, CONSUMER, "_coordinator"),
    (INTERNALS, CONSUMER, "_subscription"),
    (INTERNALS, COORDINATOR, "_lock"),
    (INTERNALS, COORDINATOR, "_heartbeat_enabled"),
    (CONNECTION, MANAGER, "_build_transport"),
    (CONNECTION, "kafka.net.transport:KafkaTCPTransport", "_sock_recv"),
    (INFLATE, "kafka.consumer.fetcher:Fetcher.PartitionRecords", "_unpack_records"),
    (NAMES, "kafka.record.default_records:DefaultRecordBatch", "_read_msg"),
    (KERNELS, "torch:ops.mkldnn", "_is_mkldnn_bf16_supported"),
    (KERNELS, "torch:ops.mkldnn", "_reorder_linear_weight"),
    (KERNELS, "torch:ops.mkldnn", "_linear_pointwise"),
    ("pipeline/engine/flat.py", "transformers:PreTrainedConfig", "_attn_implementation"),
    ("pipeline/config/advice.py", "ssl", "_ssl"),
    ("pipeline/config/advice.py", "ssl:_ssl", "_test_decode_cert"),
    ("actors/supervisor.py", "ray.serve.context", "_get_global_client"),
]
"""The product's file, whose part it is, and its name."""

UNDOCUMENTED = [
    (INTERNALS, COORDINATOR, "rejoining"),
    (INTERNALS, COORDINATOR, "request_rejoin"),
    (INTERNALS, COORDINATOR, "coordinator_id"),
    (INTERNALS, COORDINATOR, "state"),
    (INTERNALS, "kafka.coordinator.base:MemberState", "STABLE"),
    (INTERNALS, "kafka.consumer.subscription_state:SubscriptionState", "assignment"),
    (INTERNALS, "kafka.consumer.subscription_state:TopicPartitionState", "position"),
    (INTERNALS, CLUSTER, "topic_id"),
    (INTERNALS, CLUSTER, "request_update"),
    (INTERNALS, MANAGER, "run"),
    (INTERNALS, MANAGER, "wait_for"),
    (CONNECTION, MANAGER, "get_connection"),
    (CONNECTION, "kafka.net.connection:KafkaConnection", "init_future"),
    (CONNECTION, "kafka.net.compat:KafkaNetClient", "_manager"),
    (CONNECTION, "kafka.net.selector", "NetworkSelector"),
    (INFLATE, "kafka.consumer.fetcher:Fetcher", "PartitionRecords"),
    (INFLATE, "kafka.consumer.fetcher:Fetcher.PartitionRecords", "next_fetch_offset"),
    (NAMES, "kafka.record.default_records:DefaultRecordBatch", "_buffer"),
    *(
        (INFLATE, module, f"{codec}_decode")
        for module in ("kafka.codec", "kafka.record.default_records", "kafka.record.legacy_records")
        for codec in ("gzip", "snappy", "lz4")
    ),
    (INFLATE, "kafka.codec", "zstd_decode"),
    (INFLATE, "kafka.record.default_records", "zstd_decode"),
    (KERNELS, "torch:ops.onednn", "qlinear_pointwise"),
]
"""The same for names without an underscore that no documentation promises."""

PUBLIC = frozenset({"_exit", "_fields", "_replace"})
"""Documented, in spite of their underscore: of `os`, and of named tuples."""


@pytest.mark.parametrize(("path", "owner", "name"), [*PRIVATE, *UNDOCUMENTED])
def test_installed_version_has_the_part_and_the_product_uses_it(path: str, owner: str, name: str) -> None:
    assert name in _names(owner)
    assert name in (ROOT / path).read_text(encoding="utf-8")


def test_list_names_every_private_part_that_the_product_uses() -> None:
    used = {(path, name) for path, name in _uses() if name not in PUBLIC}
    assert used == {(path, name) for path, _, name in PRIVATE}


class _Names:
    """What an object has, asked name by name: the operators of torch are looked up when they are first asked for."""

    def __init__(self, found: Any) -> None:
        self._found = found
        self._set = _attributes_set(found) if inspect.isclass(found) else frozenset()

    def __contains__(self, name: str) -> bool:
        return name in self._set or hasattr(self._found, name)


@cache
def _names(owner: str) -> _Names:
    return _Names(resolve_name(owner))


def _attributes_set(owner: type) -> frozenset[str]:
    """Returns the attributes that the methods of a class and its bases set: instances have them, the class has not."""
    names: set[str] = set()
    for base in inspect.getmro(owner):
        if base.__module__ != "builtins":
            names |= set(_assigned_to_self(ast.parse(textwrap.dedent(inspect.getsource(base)))))
    return frozenset(names)


def _assigned_to_self(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            yield node.attr


def _uses() -> Iterator[tuple[str, str]]:
    """Yields the private names of others in the product: attributes, and what is imported."""
    for package in ("pipeline", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and not _is_own(node.value):
                    names = [node.attr]
                elif isinstance(node, ast.ImportFrom):
                    names = [alias.name for alias in node.names]
                else:
                    continue
                yield from ((str(path.relative_to(ROOT)), name) for name in names if _is_private(name))


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in {"self", "cls"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
