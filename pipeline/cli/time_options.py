"""Times as the command line takes them."""

import datetime as dt

from pipeline.errors import ConfigError


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
