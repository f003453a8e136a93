"""Times as people and programs write them: RFC 3339 with a zone, or a date, which means its midnight in UTC."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def moment(text: str) -> datetime | None:
    """Returns the moment that a text names, to the microsecond and in UTC; None where it names none.

    A time without a zone is not a moment, and nothing is guessed about it.
    """
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # month 13, second 60, year 0
        pass
    return None
