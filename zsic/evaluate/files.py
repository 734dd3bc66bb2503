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


def find_files(output: str | Iterable[str], filesystem: Filesystem | None) -> list[str]:
    """Expand a pattern to sorted paths; a list of paths is taken as it is.  Raises `SpecError` when there is none."""
    if not isinstance(output, str):
        return list(dict.fromkeys(output))
    found = glob.glob(output) if filesystem is None else filesystem.glob(output)
    if not found:
        raise SpecError(f"{output}: no such file; an output's parts match `OUT/*.parquet`")
    return sorted(found)


def open_file(path: str, filesystem: Filesystem | None) -> IO[bytes]:
    """Open a file for reading.  Raises `SpecError` that names it."""
    try:
        if filesystem is None:
            return open(path, "rb")
        return cast(IO[bytes], filesystem.open(path, "rb"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or 'cannot be read'}") from None
