"""Rows about store, embedders, dead letters, files and API: 21 to 33, 35 to 40, 42 to 45, 48 to 50."""

from tests.faults.row import Row

STORE = "tests/faults/test_store.py::"
COLLECTIONS = "tests/faults/test_collections.py::"
ENCODER = "tests/faults/test_encoder.py::"
DISK = "tests/faults/test_disk.py::"
LETTERS = "tests/faults/test_letters.py::"
FILES = "tests/faults/test_files.py::"
RAY = "tests/faults/test_ray.py::"

ROWS = (
    Row(
        21,
        "store server killed during upserts, again and again",
        "kill -9 at any moment; dead after it has applied an upsert and before its answer",
        "unknown outcomes are repeated; equal after each cycle",
        (f"{STORE}test_server_killed_during_upserts",),
        is_smoke=True,
    ),
    Row(
        22,
        "store server hangs",
        "SIGSTOP for 60 s (REFRACT_FAULTS_OUTAGE_S); for 8 s while a member is killed",
        "time-outs, back-off, paused at the bound; calls bounded; full speed within 10 s",
        (f"{STORE}test_server_hangs_for_long", f"{STORE}test_server_stopped_and_a_member_killed_meanwhile"),
    ),
    Row(
        23,
        "upsert applied, answer lost",
        "proxy cuts at the answer's first byte; proxy swallows answers",
        "the repetition changes nothing",
        (f"{STORE}test_answer_to_an_upsert_is_lost",),
        is_smoke=True,
    ),
    Row(
        24,
        "200 with wait_timeout or acknowledged",
        "the server answers so and writes nothing",
        "not taken for done: nothing is committed",
        (f"{STORE}test_answer_that_is_no_completion",),
    ),
    Row(
        25,
        "rate limit, with and without retry-after",
        "RESOURCE_EXHAUSTED with `retry-after: 3`; without, asking to split",
        "waits as asked; sends halves; no letter",
        (f"{STORE}test_rate_limit_that_says_how_long", f"{STORE}test_rate_limit_that_no_pause_satisfies"),
    ),
    Row(
        26,
        "store has no space left",
        "the server's INTERNAL answer; a server on a tmpfs that is filled",
        "waits, not ready, goes on once there is room; no letter, no loss",
        (f"{STORE}test_server_refuses_for_a_while", f"{DISK}test_disk_of_the_server_is_full"),
    ),
    Row(
        27,
        "quota exceeded; shard unavailable",
        "RESOURCE_EXHAUSTED without retry-after (507); UNAVAILABLE (503)",
        "as 26",
        (f"{STORE}test_server_refuses_for_a_while",),
    ),
    Row(
        28,
        "one point of a batch is refused",
        "INVALID_ARGUMENT for every request that holds it",
        "halved until it stands alone: 255 stored, one letter",
        (f"{STORE}test_one_point_of_a_batch_is_refused",),
    ),
    Row(
        29,
        "key of the store is rotated",
        "server restarted with another key",
        "stops loudly, records kept; the key in no log",
        (f"{COLLECTIONS}test_key_is_rotated",),
    ),
    Row(
        30,
        "collection dropped",
        "deleted under the pipeline; while it stands still",
        "stops, and refuses to go on behind the committed offsets; `refract rewind` fills it again",
        (
            f"{COLLECTIONS}test_collection_is_dropped_under_the_pipeline",
            f"{COLLECTIONS}test_collection_is_dropped_while_nobody_runs",
        ),
    ),
    Row(
        31,
        "older state of the store restored",
        "the server's files replaced by a copy made earlier, with and without a member running",
        "noticed by the point each commit names; `refract rewind` has the rest read again; an equal state passes",
        (
            f"{COLLECTIONS}test_older_state_is_restored_while_nobody_runs",
            f"{COLLECTIONS}test_older_state_is_restored_under_the_pipeline",
            f"{COLLECTIONS}test_same_state_is_restored_and_nobody_objects",
        ),
    ),
    Row(
        32,
        "embedder killed",
        "kill -9 until it hits a batch",
        "replaced within 20 s, batch sent again",
        ("tests/e2e/test_streaming.py::test_killed_embedder_loses_nothing",),
        is_smoke=True,
    ),
    Row(
        33,
        "raylet or gcs_server killed",
        "kill -9 of that process of the command's own cluster",
        "`refract run` ends by itself; the next one goes on from Kafka",
        (f"{RAY}test_process_of_ray_is_killed",),
    ),
    Row(
        35,
        "encoder runs out of memory",
        "OutOfMemoryError for forward batches of more than 100 tokens, of a transformer",
        "halved until it fits; no letter",
        (f"{ENCODER}test_memory_holds_a_few_texts_only",),
    ),
    Row(
        36,
        "rows that are not finite",
        "NaN in company only; NaN always, of a transformer",
        "computed again alone; a letter, and never stored",
        (f"{ENCODER}test_row_is_not_finite_in_company_and_is_alone", f"{ENCODER}test_row_is_never_finite"),
    ),
    Row(
        37,
        "rows of wrong count, dimension or order",
        "the encoder's answer is changed",
        "count, dimension: stops loudly; order: only computing again tells, `refract verify` and `repair` do",
        (
            f"{ENCODER}test_rows_of_another_shape_stop_the_worker",
            f"{ENCODER}test_rows_in_another_order_are_found_by_verify_and_mended",
        ),
    ),
    Row(
        38,
        "encoder hangs",
        "failpoint forward sleeps in one of two embedders",
        "replaced once it has hung for 120 s; its batch is sent again",
        (f"{RAY}test_encoder_hangs",),
    ),
    Row(
        39,
        "memory is short",
        "the member is put into a cgroup with 24 MiB to spare, then large records",
        "the kernel kills it; the next one goes on",
        (f"{DISK}test_memory_is_short",),
    ),
    Row(
        40,
        "disk of the logs is full",
        "log on a tmpfs that is filled, server killed meanwhile",
        "lines are lost, records are not (there is no spool of letters, and nothing spills but Ray)",
        (f"{DISK}test_disk_of_the_logs_is_full",),
    ),
    Row(
        42,
        "dead-letter topic gone, unwritable, or small",
        "topic deleted; min.insync.replicas above the replicas; max.message.bytes 20,000",
        "made again; the partition waits, others go on; shortened letter",
        (
            f"{LETTERS}test_topic_is_deleted",
            f"{LETTERS}test_topic_takes_nothing",
            f"{LETTERS}test_topic_takes_little",
        ),
    ),
    Row(
        43,
        "files beside live writes to the same keys",
        "`refract backfill` while records stream in, versions and deletes at random",
        "the newest version wins, whichever way it came",
        (f"{FILES}test_files_beside_live_writes_to_the_same_keys",),
        is_smoke=True,
    ),
    Row(
        44,
        "backfill killed and repeated",
        "kill -9 of the command and all it started, twice",
        "goes on where it was; equal in the end",
        (f"{FILES}test_run_over_files_is_killed_and_repeated",),
    ),
    Row(
        45,
        "file cut short",
        "one of three Parquet files truncated",
        "named, the others stored, exit code 1; mended and run again: equal",
        (f"{FILES}test_file_is_broken",),
    ),
    Row(
        48,
        "alias moves under queries",
        "two readers search while it goes back and forth between two fingerprints",
        "each answer from the asker's own collection, or refused; never a mixture",
        (f"{COLLECTIONS}test_alias_moves_under_queries",),
    ),
    Row(
        49,
        "API flooded, replicas killed",
        "40 clients against 8 places; kill -9 of the API's and of an embedder's process",
        "200, 429 or 503, and what was under way in the killed replica is answered 500 by Serve; no wrong answer",
        (f"{RAY}test_api_is_flooded_and_replicas_die",),
    ),
    Row(
        50,
        "only the way to the store is cut",
        "proxy stalls both ways, or refuses, for longer than a session",
        "paused; membership kept by polling: no partition moves",
        (f"{STORE}test_only_the_way_to_the_store_is_cut",),
    ),
)
