"""Where this machine keeps what it would otherwise fetch, encode or measure again."""

import contextlib
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/zsic`, or `~/.cache/zsic`; everything below may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zsic"


def keep(path: Path, data: bytes) -> None:
    """Put a file of the cache in place at once.  A cache that cannot be written costs time alone."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            partial = Path(scratch) / path.name
            partial.write_bytes(data)
            partial.replace(path)
