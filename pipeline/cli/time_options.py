"""Times as the command line takes them."""

import datetime as dt
import re

from pipeline.errors import ConfigError

_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def span_ms(option: str, text: str) -> int:
    """Returns a span of time such as 30d as milliseconds. Raises ConfigError that names the option."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if found is None:
        raise ConfigError(
            f"{option}: {text!r} is not a span of time: expected a whole number from 1 and a unit (m, h, d or w: "
            "minutes, hours, days or weeks), such as 30d"
        )
    return int(found[1]) * _UNITS_MS[found[2]]


def unix_ms(option: str, text: str, or_else: str = "") -> int:
    """Returns an RFC 3339 date or time as Unix milliseconds; without a zone it is UTC.

    Raises ConfigError that names the option; `or_else` is what else it takes.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        expected = f"neither {or_else} nor a time" if or_else else "not a time"
        raise ConfigError(f"{option}: {text!r} is {expected} such as 2026-01-31 or 2026-01-31T08:00:00Z.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1000)
