"""The output's store in a folder of a local or shared disk."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zsic.core.errors import StoreError

DRAFTS = "_zsic/draft"


class DiskStore:
    """A folder.

    A new object is written beside its place, flushed to the disk, and linked to its name: readers see all of it
    or nothing, and the link fails if the name is taken.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def create(self, name: str, data: bytes) -> bool:
        path = self.root / name
        with self._explaining("write", name):
            _make_folder(path.parent)
            draft = self.root / DRAFTS / f"{uuid.uuid4().hex}.draft"
            _make_folder(draft.parent)
            try:
                with draft.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    _link(draft, path)
                except FileExistsError:
                    # An earlier attempt may have died between the link and the flush.
                    _flush_folder(path.parent)
                    return path.read_bytes() == data
                _flush_folder(path.parent)
                return True
            finally:
                draft.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        try:
            with self._explaining("read", name, or_missing=True):
                return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        with self._explaining("read", name, or_missing=True):
            return (self.root / name).open("rb")

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        with self._explaining("list", prefix):
            found = []
            try:
                with os.scandir(self.root / prefix) as entries:
                    for entry in entries:
                        # A file may go between being listed and being asked for its size.
                        with contextlib.suppress(FileNotFoundError):
                            if entry.is_file() and not entry.name.startswith("."):
                                found.append((entry.name, entry.stat().st_size))
            except (FileNotFoundError, NotADirectoryError):
                return
        for name, n_bytes in sorted(found):
            yield f"{prefix}/{name}".lstrip("/"), n_bytes

    def delete(self, name: str) -> None:
        with self._explaining("delete", name):
            (self.root / name).unlink(missing_ok=True)

    def digest(self, name: str) -> str:
        with self._explaining("read", name, or_missing=True), (self.root / name).open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def _explaining(self, verb: str, name: str, *, or_missing: bool = False) -> Iterator[None]:
        """Turn what the system raises into `StoreError`; a `FileNotFoundError` passes where it is an answer."""
        try:
            yield
        except OSError as error:
            if or_missing and isinstance(error, FileNotFoundError):
                raise
            raise StoreError(f"output: cannot {verb} {self.root / name}: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: a name in a folder that a power loss takes away is lost with it."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _flush_folder(each.parent)


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name; raises `FileExistsError` if the name is taken."""
    try:
        os.link(draft, path)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        # Some network and removable file systems have no hard links.  The rename is atomic for readers; only two
        # writers at the same instant could both win.
        if path.exists():
            raise FileExistsError(path) from None
        draft.rename(path)


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power loss, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
