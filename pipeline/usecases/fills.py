"""What may be filling collections with records older than their tombstones: no tombstone may leave meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.binding import Task
from pipeline.context import Context

Fills = Callable[[Context, Sequence[Task]], Iterable[str]]
"""Returns a sentence for each fill of the tasks' collections that is begun and not finished."""


def unfinished_backfills(context: Context, tasks: Sequence[Task]) -> Iterator[str]:
    """Yields what the backfill's ledger has begun and not finished; see `Fills`. Raises EnvironmentFault."""
    from pipeline.backfill.ledger import read_progress  # pyarrow
    from pipeline.usecases.backfill import ledger_folder

    folder = ledger_folder(context.config, None)
    names = {task.fingerprint: task.name for task in tasks}
    for found in read_progress(folder):
        if found.num_begun and found.fingerprint in names:
            yield (
                f"task {names[found.fingerprint]!r}: a backfill has begun {found.num_begun:,} fragments that are not "
                f"finished; run it again to its end (ledger in {folder})"
            )


FILLS: tuple[Fills, ...] = (unfinished_backfills,)
"""All that is asked. Whatever else fills collections adds itself here."""


def fills_under_way(context: Context, tasks: Sequence[Task]) -> list[str]:
    """Returns a sentence for each fill that is begun and not finished. Raises EnvironmentFault."""
    return [sentence for fills in FILLS for sentence in fills(context, tasks)]
