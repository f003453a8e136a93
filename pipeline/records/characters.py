"""Texts that come from elsewhere than a decoder: arguments, queries, filters."""


def is_text(value: str) -> bool:
    """Whether a string is characters: half a surrogate pair, which Python's strings may hold, is not one."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
