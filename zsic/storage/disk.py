"""How files on a local or mounted disk are listed and read."""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NoReturn

from zsic.core.outcome import Outcome
from zsic.storage.access import ObjectInfo, PassingError, check_size, check_version, fail
from zsic.storage.uri import local_path, local_uri

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})


class Disk:
    """Files below folders.  Links are followed; pipes, sockets and devices are never opened."""

    def list(self, folder: str, starting: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Walk depth first, in order of names; holds the names of one folder per level.

        A folder that cannot be listed raises `ReadError`: to skip it would lose images without a word.
        """
        path = os.path.abspath(local_path(folder))
        yield from _walk(path, starting, depth, ())

    def is_folder(self, uri: str) -> bool:
        return os.path.isdir(local_path(uri))

    def stat(self, uri: str) -> ObjectInfo:
        path = _path(uri)
        try:
            status = os.stat(path)
        except OSError as error:
            _give_up(error)
        _check_regular(status)
        return _describe(path, status)

    def read(self, uri: str, start: int | None, end: int | None, expect: ObjectInfo | None, max_bytes: int) -> bytes:
        try:
            # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
            handle = os.open(_path(uri), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            _give_up(error)
        try:
            before = os.fstat(handle)
            _check_regular(before)
            check_version(expect, before.st_size, mtime_ns=before.st_mtime_ns)
            start, end = start or 0, before.st_size if end is None else min(end, before.st_size)
            check_size(end - start, max_bytes)
            data = _read(handle, start, end)
            after = os.fstat(handle)
        except OSError as error:
            _give_up(error)
        finally:
            os.close(handle)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            fail(Outcome.CHANGED, "modified while it was read")
        return data


def _path(uri: str) -> str:
    path = local_path(uri)
    if "\0" in path:
        fail(Outcome.MISSING, "no file can have such a name")
    return path


def _read(handle: int, start: int, end: int) -> bytes:
    """Read [start, end); one read is at most 2 GiB, and may be short on network disks."""
    pieces = []
    while start < end and (piece := os.pread(handle, end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _walk(folder: str, starting: str, depth: int | None, above: tuple[tuple[int, int], ...]) -> Iterator[ObjectInfo]:
    try:
        status = os.stat(folder)
        # `listdir`, not `scandir`: no descriptor stays open while the caller is busy with what was found.
        names = sorted(name for name in os.listdir(folder) if name.startswith(starting))
    except OSError as error:
        _give_up(error)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return  # A link to a folder above: everything in it has been listed already.
    for name in names:
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno not in _GONE:
                _give_up(error)
            yield ObjectInfo(local_uri(path), None)
            continue
        if stat.S_ISDIR(status.st_mode):
            if depth is None or depth > 1:
                yield from _walk(path, "", None if depth is None else depth - 1, (*above, here))
        elif stat.S_ISREG(status.st_mode):
            yield _describe(path, status)


def _describe(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(local_uri(path), status.st_size, None, status.st_mtime_ns)


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        fail(Outcome.NOT_AN_IMAGE, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")


def _give_up(error: OSError) -> NoReturn:
    words = (error.strerror or "cannot be read").lower()
    if error.errno in _GONE:
        fail(Outcome.MISSING, words)
    if error.errno in _REFUSED:
        fail(Outcome.FORBIDDEN, words)
    raise PassingError(words) from error
