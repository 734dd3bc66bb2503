"""Where this machine keeps what it would otherwise fetch or measure again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/zsic`, or `~/.cache/zsic`; everything below may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zsic"
