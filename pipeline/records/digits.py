"""Whole numbers in texts that anybody may have written: headers, addresses, metadata."""

_MAX_DIGITS = 18
"""Fewer than an int64 has, so that every number fits where it is put."""


def whole_number(text: str) -> int | None:
    """Returns the number of up to 18 ASCII digits; None for any other text.

    What `str.isdigit` calls digits, `int` does not always read: a superscript two, or thousands of nines.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
