"""The legs of the promise, each with the edit that removes it and the fast tests that must notice."""

from dataclasses import dataclass
from pathlib import Path

UNIT, CONTRACT = "tests/unit", "tests/contract"
SIMULATION = "tests/simulation/test_simulation.py::test_store_equals_source_after_any_faults_quick"


class MovedError(Exception):
    """An edit no longer fits the source."""


@dataclass(frozen=True)
class Mutant:
    """One removal. `old` must occur exactly once in `path`."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def edited(root: Path, mutant: Mutant) -> str:
    """Returns the source without the mutant's leg. Raises MovedError when the edit does not fit exactly once."""
    source = (root / mutant.path).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise MovedError(
            f"mutant {mutant.name!r}: {mutant.path} holds its line {source.count(mutant.old)} times, expected once; "
            f"bring tests/mutants/catalogue.py up to date: {mutant.old.strip()!r}"
        )
    return source.replace(mutant.old, mutant.new)


_WORKER, _REFRACTOR = f"{UNIT}/test_worker.py", f"{UNIT}/test_refractor.py"
_RIGHT_ACTIONS = {
    "RecordError": ("DEAD_LETTER", f"{_REFRACTOR}::test_one_record_the_store_refuses_is_found_by_bisection"),
    "BatchShapeError": (
        "SPLIT",
        f"{_REFRACTOR}::test_batch_that_is_too_large_for_the_embedder_is_halved_until_it_fits",
    ),
    "TransientError": ("RETRY", f"{_WORKER}::test_outage_is_never_dead_lettered"),
    "UnknownOutcomeError": ("RETRY", f"{_WORKER}::test_outage_is_never_dead_lettered"),
    "DiedError": ("RETRY", f"{_WORKER}::test_outage_is_never_dead_lettered"),
    "OwnershipError": (
        "DROP",
        f"{_WORKER}::test_work_that_belongs_to_somebody_else_now_is_dropped_and_the_loop_goes_on",
    ),
    "EnvironmentFault": ("STOP", f"{_WORKER}::test_fault_of_the_environment_ends_the_loop_and_leaves_the_group"),
}
"""The table of error classes, with the test that sees what each class leads to."""

_ALIKE = {("RecordError", "SPLIT"), ("BatchShapeError", "DEAD_LETTER")}
"""A batch of one that is split is a dead letter; one of many, to be dead-lettered, is split: only the rule differs."""

_ONLY_RECORDS = f"{UNIT}/test_errors.py::test_only_a_record_error_is_ever_dead_lettered"


def _wrong_actions() -> tuple[Mutant, ...]:
    """Returns every wrong action of every class."""
    return tuple(
        Mutant(
            f"error table: {error} -> {wrong}",
            "pipeline/errors.py",
            f"    {error}: Action.{right},\n",
            f"    {error}: Action.{wrong},\n",
            (_ONLY_RECORDS if (error, wrong) in _ALIKE else test,),
        )
        for error, (right, test) in _RIGHT_ACTIONS.items()
        for wrong in ("DEAD_LETTER", "SPLIT", "RETRY", "DROP", "STOP")
        if wrong != right
    )


_STALE_UPSERT = f"{CONTRACT}/test_store.py::test_a_deleted_point_stays_deleted_against_an_older_upsert"
_LIFECYCLE = f"{CONTRACT}/test_store_lifecycle.py"
_FOUND = f"{CONTRACT}/test_store.py::test_deleted_points_are_never_found_nor_counted"

MUTANTS = (
    Mutant(
        "version guard (Edge)",
        "pipeline/stores/edge_shard.py",
        "            if point not in stored or stored[point] < version + self._over_equal\n",
        "",
        (f"{_STALE_UPSERT}[edge]",),
    ),
    Mutant(
        "version guard (server)",
        "pipeline/stores/wire.py",
        "        parts.append(self._guard)\n",
        "",
        (f"{_STALE_UPSERT}[qdrant]",),
    ),
    Mutant(
        "in-batch dedupe (refractor)",
        "pipeline/live/lane.py",
        "    return list(newest.values()), [item for item in items if newest[item.id] is not item]\n",
        "    return list(items), []\n",
        (f"{UNIT}/test_refractor.py::test_batch_keeps_only_the_newest_version_of_a_key_in_either_order",),
    ),
    Mutant(
        "in-batch dedupe (stores)",
        "pipeline/stores/points.py",
        "    newest = newest_rows(batch)\n",
        "    newest = np.arange(len(batch), dtype=np.intp)\n",
        (
            f"{UNIT}/test_store_points.py::test_a_batch_is_sent_with_the_newest_row_of_each_id",
            f"{CONTRACT}/test_store.py::test_two_versions_of_one_id_in_a_batch_leave_the_newest",
        ),
    ),
    Mutant(
        "older version behind a dead-lettered one",
        "pipeline/live/lane.py",
        "            waiting = [item for item in older if item.id in refused_ids]\n",
        "            waiting = []\n",
        (SIMULATION,),
    ),
    Mutant(
        "epoch ends at revoke",
        "pipeline/live/offsets.py",
        "{partition: self._held.pop(partition) for partition in partitions if partition in self._held}",
        "{partition: self._held[partition] for partition in partitions if partition in self._held}",
        (f"{UNIT}/test_offsets.py::test_revoke_returns_what_is_durable_and_ignores_what_finishes_later",),
    ),
    Mutant(
        "epoch check of late work",
        "pipeline/live/offsets.py",
        "return assignment is not None and assignment.epoch == receipt.epoch",
        "return assignment is not None",
        (f"{UNIT}/test_offsets.py::test_late_finish_of_an_earlier_assignment_does_not_move_the_next_one",),
    ),
    Mutant(
        "contiguous watermark",
        "pipeline/live/offsets.py",
        "while self.unfinished and self.unfinished[0].finished:",
        "while any(receipt.finished for receipt in self.unfinished):",
        (SIMULATION,),
    ),
    Mutant(
        "tombstone filter (Edge)",
        "pipeline/stores/edge_filters.py",
        "for condition in conditions], must_not=[_dead()])",
        "for condition in conditions])",
        (f"{_FOUND}[edge]",),
    ),
    Mutant(
        "tombstone filter (server)",
        "pipeline/stores/qdrant_filters.py",
        "for condition in conditions], must_not=[_state(*DEAD)])",
        "for condition in conditions])",
        (f"{_FOUND}[qdrant]",),
    ),
    Mutant(
        "witness before reading on",
        "pipeline/sources/group/held_partitions.py",
        "        self._confirm_held(starts)\n",
        "",
        (f"{UNIT}/test_witness.py::test_a_partition_whose_witness_is_gone_is_not_read_and_nothing_is_committed",),
    ),
    Mutant(
        "witness before a commit",
        "pipeline/live/durability.py",
        "                self._confirm(watermarks.witnesses)\n",
        "                pass\n",
        (f"{_WORKER}::test_nothing_more_is_committed_once_the_store_has_lost_what_was",),
    ),
    Mutant(
        "nobody is blamed for a device that kills everything",
        "pipeline/live/crashes.py",
        "                probe()\n",
        "",
        (f"{UNIT}/test_crashes.py::test_nothing_is_blamed_while_harmless_texts_die_too",),
    ),
    Mutant(
        "flush before a commit",
        "pipeline/live/durability.py",
        "            self._store.flush()\n",
        "",
        (f"{_WORKER}::test_last_records_are_flushed_and_committed_before_the_group_is_left",),
    ),
    Mutant(
        "only what was flushed is committed",
        "pipeline/live/durability.py",
        "            self.tracker.secure(watermarks)\n",
        "            self.tracker.secure(self.tracker.advance())\n",
        (f"{_WORKER}::test_what_is_finished_while_the_store_is_flushed_waits_for_the_next_flush",),
    ),
    Mutant(
        "await on dead letters (refractor)",
        "pipeline/live/refractor.py",
        "        if letters:\n            # Awaited",
        "        self._tracker.finish(delivery.receipt for delivery in current)\n"
        "        if letters:\n            # Awaited",
        (f"{UNIT}/test_refractor.py::test_nothing_is_finished_before_the_dead_letter_is_acknowledged",),
    ),
    Mutant(
        "await on dead letters (Kafka)",
        "pipeline/sources/letters/dead_letters.py",
        "                future.get(timeout=DELIVERY_TIMEOUT_MS / 1000)\n",
        "                pass\n",
        (f"{UNIT}/test_dead_letters.py::test_letter_that_is_not_acknowledged_is_an_outage",),
    ),
    Mutant(
        "status check on upserts",
        "pipeline/stores/qdrant_rpc.py",
        "        check_completed(answer, doing)\n",
        "",
        (f"{CONTRACT}/test_qdrant_faults.py::test_only_completed_is_success",),
    ),
    Mutant(
        "fingerprint check (writers)",
        "pipeline/stores/metadata.py",
        '("schema", "pipeline", "fingerprint", "dimension", "distance")',
        '("schema", "pipeline", "dimension", "distance")',
        (f"{_LIFECYCLE}::test_a_collection_whose_fingerprint_differs_behind_the_same_name_is_refused",),
    ),
    Mutant(
        "fingerprint check (readers)",
        "pipeline/stores/metadata.py",
        "    if fingerprint != task.fingerprint:\n",
        "    if fingerprint is None:\n",
        (f"{_LIFECYCLE}::test_another_fingerprint_gets_another_collection_and_searches_are_refused",),
    ),
    *_wrong_actions(),
)
