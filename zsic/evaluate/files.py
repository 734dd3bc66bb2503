"""How evaluation reaches files: on this machine, or through an fsspec filesystem that is handed in."""

import glob
from collections.abc import Iterable
from typing import IO, Any, Protocol, cast

from zsic.core.errors import SpecError


class Filesystem(Protocol):
    """The part of an fsspec filesystem that is used here."""

    def glob(self, path: str) -> list[str]:
        """List the files that match a pattern."""

    def open(self, path: str, mode: str) -> Any:
        """Open a file."""


def find_files(patterns: str | Iterable[str], filesystem: Filesystem | None) -> list[str]:
    """Expand patterns to paths, sorted, each once.  Raises `SpecError` for a pattern that nothing matches."""
    find = glob.glob if filesystem is None else filesystem.glob
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = find(pattern)
        if not matches:
            raise SpecError(f"{pattern}: no such file; an output's parts match `OUT/*.parquet`")
        found.update(matches)
    return sorted(found)


def open_file(path: str, filesystem: Filesystem | None) -> IO[bytes]:
    """Open a file for reading.  Raises `SpecError` that names it."""
    try:
        if filesystem is None:
            return open(path, "rb")
        return cast(IO[bytes], filesystem.open(path, "rb"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or 'cannot be read'}") from None
