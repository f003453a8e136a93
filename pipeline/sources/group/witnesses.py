"""The points that committed offsets name as stored: while they are in the store, the offsets stand."""

from pipeline.config.source import SourceConfig
from pipeline.sources.client.admin import group_offsets, open_admin, partitions_of
from pipeline.sources.group.positions import load_witness


def committed_witnesses(config: SourceConfig) -> frozenset[bytes]:
    """Returns the ids of the points that the group's committed offsets name now.

    Raises:
        ConfigError: a topic does not exist.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    with open_admin(config, "looking up committed offsets") as admin:
        found = group_offsets(admin, config.group_id, partitions_of(admin, config.topics))
    witnesses = (load_witness(offset.metadata) for offset in found.values())
    return frozenset(witness.id for witness in witnesses if witness is not None)
