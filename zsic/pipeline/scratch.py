"""The folder of a Ray that is started here: gone when the run ends, and with the next one if it was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/tmp")
"""Ray puts sockets below the folder, and their paths may have 107 characters at most."""
_PREFIX = "zsic-"
_LOCK = "lock"


@contextlib.contextmanager
def scratch(root: Path = ROOT) -> Iterator[Path]:
    """Hold an empty folder of one's own; what killed runs have left is removed first.

    The lock in it goes with the process that holds it, however that ends, and no other process inherits it.
    """
    _sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*/{_LOCK}"):
        # Another run may sweep, too, or end just now; and other people's folders are theirs.
        with contextlib.suppress(OSError):
            if path.parent.lstat().st_uid != os.getuid():
                continue
            with path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # One that has just been made may not be locked yet: then it holds nothing but the lock.
                if len(list(path.parent.iterdir())) > 1:
                    shutil.rmtree(path.parent, ignore_errors=True)
