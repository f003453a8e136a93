"""The dead-letter topic: lists the records that could not be stored, and sends them back for another try."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.pipeline import Config
from pipeline.context import Context
from pipeline.errors import ConfigError, Reason, nearest
from pipeline.interfaces import Progress
from pipeline.records.decode import Decoders
from pipeline.records.formats import Shown

if TYPE_CHECKING:
    from pipeline.sources.letters.letter_reader import StoredLetter
    from pipeline.sources.letters.replay import Survey


@dataclass(frozen=True, slots=True)
class ListedLetter:
    """A dead letter, and where its record was."""

    written: str
    """When the letter was written, RFC 3339."""
    topic: str
    partition: int
    offset: int
    reason: str
    task: str
    detail: str
    key: str | None
    """As JSON where the topic's format has schemas; `hex:` and digits where the bytes are no text. The value too."""
    bytes: int
    """Size of the record's value."""
    value: str | None
    """The record itself: show it only where it was asked for."""

    def tree(self, *, value: bool) -> dict[str, Any]:
        """Returns the letter as `--json` prints it, with or without the record itself."""
        facts = asdict(self)
        if not value:
            del facts["value"]
        return facts


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Which letters to replay."""

    topic: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    """Unix milliseconds: letters written then or later."""
    until_ms: int | None = None
    """Unix milliseconds: letters written before."""
    limit: int | None = None
    """The oldest so many of those that can be replayed."""
    into_compacted: bool = False
    """Also replays into compacted topics, where a replayed record can replace a newer one of its key."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What becomes of the letters."""

    letters: Sequence[Mapping[str, Any]]
    """By source topic and reason: `topic`, `reason`, and how many letters have each fate."""
    refused_again: Mapping[str, int]
    """Why today's configuration refuses records, by reason."""
    copies: int
    """Letters about a record that an earlier letter is about too."""
    replayed: int
    dry_run: bool

    def total(self, *fates: str) -> int:
        """Returns the letters of these fates."""
        return sum(row[fate] for row in self.letters for fate in fates)

    @property
    def complete(self) -> bool:
        """Whether no letter is left that should have been replayed."""
        left = self.total("refused_again", "value_lost", "no_topic", "compacted")
        return not left and (self.dry_run or self.replayed == self.total("replay"))


def list_letters(
    context: Context, *, topic: str | None = None, reason: str | None = None, limit: int | None = 20
) -> list[ListedLetter]:
    """Returns the newest letters, the newest last.

    Args:
        context: The pipeline.
        topic: Only letters of this source topic.
        reason: Only letters of this reason.
        limit: How many; None for all, in the order of partitions.

    Raises:
        ConfigError: no such topic or reason, or there is no dead-letter topic yet.
        TransientError, EnvironmentFault: see `pipeline.errors`.
    """
    from pipeline.sources.letters.letter_reader import read_dead_letters  # Kafka

    _check_choice(context.config, topic, reason)
    found = read_dead_letters(context.config.source, topic=topic, reason=reason, limit=limit)
    shown = Shown(context.config.source, context.config.limits)
    return [_listed(letter, shown) for letter in found]


class LetterReplay:
    """Sends dead letters back to their source topics: `survey` tells what becomes of them, `send` does it.

    The version guard decides: a replayed record keeps its version, so it never wins against a newer state of its key.
    """

    def __init__(self, context: Context, request: ReplayRequest) -> None:
        """Looks up the source topics. Raises like `list_letters`."""
        from pipeline.sources.letters.replay import Replay, Wanted  # Kafka

        config = context.config
        _check_choice(config, request.topic, request.reason)
        wanted = Wanted(request.topic, request.reason, request.since_ms, request.until_ms, request.limit)
        decoders = Decoders(config.source, config.limits)
        self._replay = Replay(config.source, decoders, wanted, into_compacted=request.into_compacted)
        self._survey: Survey | None = None

    def survey(self, progress: Progress) -> ReplayReport:
        """Reads every letter, decides what becomes of it, and sends nothing. Raises like `list_letters`."""
        self._survey = self._replay.survey(progress)
        return _report(self._survey, 0, dry_run=True)

    def send(self, progress: Progress) -> ReplayReport:
        """Sends what can be replayed, as the last survey or a new one says. Raises like `list_letters`."""
        survey = self._survey or self._replay.survey(progress)
        num_sent = self._replay.send(survey.chosen, progress) if survey.chosen else 0
        return _report(survey, num_sent, dry_run=False)


def _report(survey: "Survey", num_sent: int, *, dry_run: bool) -> ReplayReport:
    from pipeline.sources.letters.replay import Fate  # Kafka

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (topic, reason, fate), count in sorted(survey.counts.items()):
        row = rows.setdefault((topic, reason), {"topic": topic, "reason": reason} | dict.fromkeys(map(str, Fate), 0))
        row[fate] = count
    return ReplayReport(
        list(rows.values()),
        {str(reason): count for reason, count in survey.reasons_again.items()},
        survey.num_copies,
        num_sent,
        dry_run,
    )


def _check_choice(config: Config, topic: str | None, reason: str | None) -> None:
    reasons = [str(known) for known in Reason]
    if reason is not None and reason not in reasons:
        raise ConfigError(f"--reason: no reason {reason!r}.{nearest(reason, reasons)} Reasons: {', '.join(reasons)}")
    if topic is not None:
        config.topic_named(topic)


def _listed(letter: "StoredLetter", shown: Shown) -> ListedLetter:
    topic = letter.position.topic
    return ListedLetter(
        written=dt.datetime.fromtimestamp(letter.written_ms / 1000, dt.UTC).isoformat(timespec="seconds"),
        topic=topic,
        partition=letter.position.partition,
        offset=letter.position.offset,
        reason=letter.reason,
        task=letter.task,
        detail=letter.detail,
        key=shown.key(topic, letter.key, letter.headers),
        bytes=letter.num_value_bytes,
        value=shown.value(topic, letter.value, letter.headers),
    )
