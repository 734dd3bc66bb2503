"""One version of an object as a file for random reads, each a request of its own."""

import io

from zsic.core.outcome import Outcome
from zsic.storage.access import fail
from zsic.storage.objects import ObjectInfo, Objects


class RangeFile(io.RawIOBase):
    """A file with random access whose reads are ranges of one version of an object.

    Reads raise `ReadError`; pyarrow passes it on as it is.
    """

    def __init__(self, objects: Objects, info: ObjectInfo) -> None:
        super().__init__()
        self._objects = objects
        self._info = objects.stat(info.uri) if info.size is None else info
        self.size = self._info.size or 0
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
        data = self._objects.read(self._info.uri, start=self._at, end=end, expect=self._info, max_bytes=end - self._at)
        self._at += len(data)
        return data
