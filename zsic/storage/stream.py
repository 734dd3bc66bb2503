"""How an object is read from front to back, or here and there, without being held whole."""

import io
import zlib
from collections.abc import Iterator
from typing import Any

GZIP_CHUNK_BYTES = 2**20
MAX_EXPANSION = 200
"""Times that a compressed shard may grow; images barely compress, and gzip's limit of 1032 is a bomb's."""


class DamageError(Exception):
    """The bytes break their format, or off; the text is deterministic and fit for a row."""


class Stream(io.RawIOBase):
    """Bytes in order, over an iterator of chunks.  `take` and `skip` are what parsers want."""

    def __init__(self, chunks: Iterator[bytes], size: int) -> None:
        super().__init__()
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self.size = size
        """Of the object, in bytes; compressed, if it is."""
        self.position = 0
        """Bytes taken or skipped so far."""

    def take(self, n_bytes: int) -> bytes:
        """Return the next bytes; fewer only at the end."""
        end = self._at + n_bytes
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
        else:
            pieces = []
            while n_bytes > 0 and self._fill():
                piece = self._chunk[self._at : self._at + n_bytes]
                pieces.append(piece)
                self._at += len(piece)
                n_bytes -= len(piece)
            data = b"".join(pieces)
        self.position += len(data)
        return data

    def skip(self, n_bytes: int) -> int:
        """Pass over bytes and return how many there were."""
        left = n_bytes
        while left > 0 and self._fill():
            step = min(left, len(self._chunk) - self._at)
            self._at += step
            left -= step
        self.position += n_bytes - left
        return n_bytes - left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as the current chunk holds."""
        if not self._fill():
            return 0
        data = self.take(min(len(buffer), len(self._chunk) - self._at))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Stop fetching ahead."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        self._chunk = b""
        super().close()

    def gunzip(self) -> "Stream":
        """Return this stream, decompressed; reads raise `DamageError` for a damaged, cut or exploding one."""
        return Stream(_gunzip(self), self.size)

    def _fill(self) -> bool:
        """Make sure that there is a byte at hand; False at the end."""
        while self._at >= len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = chunk, 0
        return True


def _gunzip(stream: Stream) -> Iterator[bytes]:
    left = MAX_EXPANSION * stream.size + GZIP_CHUNK_BYTES
    data = b""
    try:
        # Several compressed files in a row are one, as for gzip itself; so are zeros between them.
        while data := data.lstrip(b"\0") or stream.take(GZIP_CHUNK_BYTES):
            inflater = zlib.decompressobj(wbits=31)
            while not inflater.eof:
                data = data or stream.take(GZIP_CHUNK_BYTES)
                try:
                    chunk = inflater.decompress(data, GZIP_CHUNK_BYTES)
                except zlib.error:
                    raise DamageError("damaged gzip data") from None
                if not (chunk or data or inflater.eof):
                    raise DamageError("gzip data that break off")
                left -= len(chunk)
                if left < 0:
                    raise DamageError(f"gzip data that expand more than {MAX_EXPANSION}-fold")
                data = inflater.unconsumed_tail or inflater.unused_data
                yield chunk
    finally:
        stream.close()
