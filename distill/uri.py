"""URIs: which file system answers to one, and how one is shown to people."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.parse import urlsplit

from distill.schema import suggestion

_PYARROW_SCHEMES = ("abfs", "abfss", "file", "gcs", "gs", "hdfs", "s3", "viewfs")


def is_uri(location: str) -> bool:
    """Whether a location is a URI, not a path."""
    return "://" in location


def open_uri(uri: str) -> tuple[Any, str]:
    """Open a URI by pyarrow's own file systems, or by those of fsspec.

    Args:
        uri: such as ``s3://bucket/folder?region=eu-west-1``, ``gs://bucket/folder``, or any that fsspec knows.

    Returns:
        A ``pyarrow.fs.FileSystem``, and the path in it.

    Raises:
        ValueError: no file system answers to the scheme, or the package for it is missing.
        OSError: the file system cannot be reached.
    """
    from pyarrow import ArrowInvalid, fs

    try:
        return fs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]
    except ArrowInvalid as unknown:
        if "Unrecognized filesystem" not in str(unknown):
            raise ValueError(f"cannot open {without_secrets(uri)}: {reason(unknown, uri)}") from None
    import fsspec  # type: ignore[import-untyped]

    _check_scheme(uri, [*_PYARROW_SCHEMES, *fsspec.available_protocols()])
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot open {without_secrets(uri)}: {reason(error, uri)}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def without_secrets(uri: str) -> str:
    """Return a URI as messages may show it: without user, password and options."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def reason(error: BaseException, uri: str) -> str:
    """Return what an error says of a URI in one line that holds no secret; some file systems write pages."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    shown = line.replace(uri, without_secrets(uri))
    for secret in _secrets(uri):
        shown = shown.replace(secret, "***")
    return shown


def _secrets(uri: str) -> list[str]:
    parts = urlsplit(uri)
    found = [parts.netloc.rpartition("@")[0], parts.password, parts.query]
    return [secret for secret in found if secret]


def _check_scheme(uri: str, known: list[str]) -> None:
    scheme = uri.partition("://")[0].partition("::")[0].lower()
    if scheme not in known:
        close = difflib.get_close_matches(scheme, known, n=1, cutoff=0.5)  # 0.5: s4 is near s3
        raise ValueError(
            f"cannot open {without_secrets(uri)}: no file system answers to {scheme}://, as they do to s3://, gs:// "
            f"and abfs://.{suggestion(next(iter(close), ''))}"
        )
