"""What Qdrant Edge raises, as the classes of `pipeline.errors`."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import EnvironmentFault, Reason, RefractError, TransientError
from pipeline.stores.points import refused

NO_SPACE = ("No space left", "os error 28", "not enough space")
PANIC = "PanicException"
"""Rust panics reach Python as this direct child of BaseException."""


@contextmanager
def edge_errors(doing: str, num_points: int = 0) -> Iterator[None]:
    """Turns what Edge raises inside into the classes of `pipeline.errors`.

    Edge raises bare Exceptions with a text, and TypeError or ValueError for a payload it cannot convert.

    Args:
        doing: What was tried, naming the collection; begins the message.
        num_points: How many points a payload that cannot be converted may belong to; 0 where no payload is sent, so
            that such an error is a bug.
    """
    try:
        yield
    except RefractError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        if not num_points:
            raise
        detail = f"{doing}: {type(error).__name__} while converting a payload"
        raise refused(num_points, Reason.REFUSED_BY_STORE, detail) from error
    except OSError as error:
        raise _failure(doing, f"{error.strerror} (os error {error.errno})") from error
    except Exception as error:
        raise _failure(doing, str(error)) from error
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise EnvironmentFault(f"{doing}: the embedded store panicked") from error


def _failure(doing: str, text: str) -> RefractError:
    if any(sign in text for sign in NO_SPACE):
        return TransientError(f"{doing}: no space left on the store's disk")
    return EnvironmentFault(f"{doing}: {text[:300]}")
