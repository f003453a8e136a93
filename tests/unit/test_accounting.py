"""Records that are none: each is in the dead-letter topic, still to come, or lost, and a lost one can be written."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from pipeline.compare.accounting import BATCH_LETTERS, Accounts, Undecodable, account, write_missing
from pipeline.compare.patience import patient
from pipeline.compare.waiting import Waiting
from pipeline.errors import Reason
from pipeline.interfaces import PLACE, Found, Letters, Origin
from pipeline.records.batches import Int64
from pipeline.records.record import Partition, Position
from tests.fakes import FakeDeadLetters

PLACE_0 = Partition("tickets", 0)


class LetterRange:
    """Bad records at offsets 0..n-1, at 100 ms each; those in `written` have a letter."""

    begins: Mapping[Partition, int] = {}
    ends: Mapping[Partition, int] = {}

    def __init__(self, num_records: int, written: list[int]) -> None:
        self.num_records = num_records
        self.written = [(offset, offset * 100) for offset in written]
        self.finished = num_records
        self.kept_since_ms = 0.0

    def read(
        self, wanted: Mapping[tuple[str, int], Int64] | None = None, after: Position | None = None
    ) -> Iterator[Found]:
        assert wanted is not None
        assert after is None
        for offset in wanted["tickets", 0].tolist():
            position = Position("tickets", 0, offset, offset * 100)
            yield Found(position, None, Reason.INVALID_JSON, "why", 1, (b"k", b"{", (("h", b"v"),)))

    def origin_of(self, source: str) -> Origin:
        raise NotImplementedError(source)

    def committed(self) -> Mapping[Partition, int]:
        return {PLACE_0: self.finished}

    def letters(self) -> Letters | None:
        return Letters({PLACE_0: np.array(self.written, PLACE)}, {}, self.kept_since_ms)


def quiet(doing: str, done: int, total: int) -> None:
    pass


def accounts_of(source: LetterRange, *, wait_s: float = 0.0) -> Accounts:
    undecodable = Undecodable()
    for offset in range(source.num_records):
        undecodable.add(Position("tickets", 0, offset, offset * 100))
    return account(source, undecodable, Waiting(wait_s, lambda: True, quiet))


def lost(accounts: Accounts) -> list[int]:
    return accounts.missing[PLACE_0].tolist() if accounts.missing else []


def test_every_bad_record_with_a_letter_is_accounted_for() -> None:
    accounts = accounts_of(LetterRange(3, [2, 0, 1, 1]))
    assert accounts.complete
    assert (accounts.num_missing, accounts.num_pending, accounts.num_unknown) == (0, 0, 0)


def test_a_bad_record_without_a_letter_is_lost() -> None:
    accounts = accounts_of(LetterRange(4, [0, 2]))
    assert lost(accounts) == [1, 3]
    assert not accounts.complete


def test_a_letter_of_a_topic_that_was_recreated_since_does_not_count() -> None:
    source = LetterRange(2, [0])
    source.written.append((1, 99))
    assert lost(accounts_of(source)) == [1]


def test_what_the_pipeline_has_not_come_to_is_pending() -> None:
    source = LetterRange(4, [0])
    source.finished = 2
    accounts = accounts_of(source)
    assert (lost(accounts), accounts.num_pending, accounts.complete) == ([1], 2, False)


def test_a_letter_that_is_written_meanwhile_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    source = LetterRange(2, [0])
    source.finished = 1

    def write(_: float) -> None:
        source.written.append((1, 100))
        source.finished = 2

    monkeypatch.setattr("pipeline.compare.waiting.time.sleep", write)
    assert accounts_of(source, wait_s=10).complete


def test_what_is_lost_later_is_added_to_what_was_lost_before(monkeypatch: pytest.MonkeyPatch) -> None:
    source = LetterRange(4, [0])
    source.finished = 2

    def go_on(_: float) -> None:
        source.finished = 4

    monkeypatch.setattr("pipeline.compare.waiting.time.sleep", go_on)
    accounts = accounts_of(source, wait_s=10)
    assert (lost(accounts), accounts.num_pending) == ([1, 2, 3], 0)


def test_what_retention_has_removed_is_no_fault() -> None:
    source = LetterRange(4, [3])
    source.kept_since_ms = 200
    accounts = accounts_of(source)
    assert (lost(accounts), accounts.num_unknown) == ([2], 2)


def test_a_source_without_dead_letters_has_nothing_to_account_for(monkeypatch: pytest.MonkeyPatch) -> None:
    source = LetterRange(4, [])
    monkeypatch.setattr(source, "letters", lambda: None)
    accounts = accounts_of(source)
    assert (accounts.num_missing, accounts.num_pending, accounts.complete) == (0, 0, True)


@pytest.mark.parametrize("num_lost", [1, BATCH_LETTERS, BATCH_LETTERS + 1])
def test_missing_letters_are_written_with_what_the_record_holds(num_lost: int) -> None:
    source = LetterRange(num_lost, [])
    dead_letters = FakeDeadLetters()
    assert write_missing(source, accounts_of(source), dead_letters, patient(quiet), quiet) == num_lost
    assert len(dead_letters.letters) == num_lost
    [letter] = [letter for letter in dead_letters.letters if letter.position.offset == num_lost - 1]
    assert (letter.reason, letter.key, letter.value, letter.headers) == (
        Reason.INVALID_JSON,
        b"k",
        b"{",
        (("h", b"v"),),
    )
    assert letter.detail == "why"
