"""An object as a file for random reads, each a request: Parquet asks for just the ranges that it needs."""

import io
from collections.abc import Callable

from zsic.core.outcome import Outcome
from zsic.storage.access import fail
from zsic.storage.objects import ObjectInfo, Objects


class RangeFile(io.RawIOBase):
    """A file whose reads are ranges of bytes, `start` to `end`, that `read_range` brings.

    What it raises, reads raise; pyarrow passes it on as it is.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read_range
        self.size = size
        self._at = 0
        self.max_read_bytes: int | None = None
        """Most bytes of one read, or any number."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, n_bytes: int | None = -1) -> bytes:
        """Read one range by one request."""
        end = self.size if n_bytes is None or n_bytes < 0 else min(self._at + n_bytes, self.size)
        if end <= self._at:
            return b""
        if self.max_read_bytes is not None and end - self._at > self.max_read_bytes:
            fail(Outcome.BAD_SHARD, f"a header of {end - self._at} bytes; {self.max_read_bytes} are allowed")
        data = self._read_range(self._at, end)
        self._at += len(data)
        return data


def open_version(objects: Objects, info: ObjectInfo) -> RangeFile:
    """Open the version of a source object that `info` tells of.  Reads raise `ReadError`."""
    version = objects.stat(info.uri) if info.size is None else info

    def read_range(start: int, end: int) -> bytes:
        return objects.read(version.uri, start=start, end=end, expect=version, max_bytes=end - start)

    return RangeFile(read_range, version.size or 0)
