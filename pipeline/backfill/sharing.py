"""How a backfill that uses the running app's embedders and store keeps out of its way."""

from collections.abc import Iterable, Mapping

from pipeline.backfill.carrier import Manner
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError

BATCH_RECORDS = 32
REST = 1.0
"""An embedded store of the running app is one process, on a machine that others of the app may need as well: so many
records are embedded and written at a time, which a live write waits for, and then as much time passes."""


def considerate(config: Config) -> tuple[Config, Manner]:
    """Returns the configuration and manner of a carrier beside live traffic."""
    if config.store.type != "edge":
        return config, Manner()
    few = min(config.limits.max_batch_records, BATCH_RECORDS)
    limits = config.limits.model_copy(update={"max_batch_records": few, "max_concurrent_batches": 1})
    return config.model_copy(update={"limits": limits}), Manner(rest=REST)


def check_same_tasks(running: Mapping[str, str], tasks: Iterable[Task]) -> None:
    """Raises ConfigError where the running app, by its fingerprints per task, embeds otherwise than these tasks say."""
    for task in tasks:
        if running.get(task.name) != task.fingerprint:
            raise ConfigError(
                f"--share: the running app has another task {task.name!r} ({running.get(task.name, 'none')[:10]}, here "
                f"{task.fingerprint[:10]}); restart it with this configuration, or leave --share out"
            )
