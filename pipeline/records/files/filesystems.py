"""Opens the place an input or output names: this machine, or S3, Google or Azure storage through pyarrow."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from pipeline.errors import ConfigError

READ_ERRORS = (OSError, ValueError, ArithmeticError, pa.ArrowException)
"""What pyarrow raises over files that are missing, damaged or of an odd kind."""

_SECRETS = ("key", "secret", "token", "password", "sig", "credential")
"""Words in the names of query parameters that carry credentials."""


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Returns pyarrow's filesystem and the path in it.

    Credentials come from where the cloud's own tools find them (environment, profile, instance role).

    Raises ConfigError; of an address with credentials it repeats the scheme only.
    """
    scheme = scheme_of(uri)
    try:
        uri.encode()
        parts = urlsplit(uri if scheme else "")
    except UnicodeEncodeError:
        raise ConfigError(f"{uri!r}: the path is not UTF-8; rename the file") from None
    except ValueError:
        raise ConfigError(f"{scheme} input: not an address that can be read") from None
    if not uri:
        raise ConfigError("an input has an empty name; is a variable not set?")
    if not scheme:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    names = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    # The container of an Azure address stands before an @ as well: abfs://container@account.
    is_container = scheme.startswith("abfs") and ":" not in parts.netloc
    if ("@" in parts.netloc and not is_container) or any(word in name for name in names for word in _SECRETS):
        raise ConfigError(
            f"{scheme} input: credentials do not belong in an address, where logs and process lists show them; use the "
            "environment, a profile or a role"
        )
    try:
        found, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(f"{scheme} input cannot be opened ({type(error).__name__})") from None
    return found, path


def scheme_of(uri: str) -> str:
    """Returns `s3://` and the like; empty for a plain path."""
    return f"{uri.partition('://')[0]}://" if "://" in uri else ""


def is_unchanged(uri: str, size: int, mtime_ns: int) -> bool:
    """Whether the file is as it was listed. Raises OSError."""
    files, path = open_filesystem(uri)
    info = files.get_file_info(path)
    return (info.size, info.mtime_ns or 0) == (size, mtime_ns)
