"""Reading a video in a process of its own, which the video may kill, or hang in, or fill: it costs no other source.

The child (`zsic.core.child`) has nothing of the file but what it asks its parent for, range by range, so it needs no
credentials, and a video in an object store is not downloaded to be read.  A row travels uncompressed, as the bytes of a
PPM file: exact, and the cheapest to write and to decode.

To start a child costs 0.3 s (measured).
"""

import io
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Self, cast

from zsic.core.child import GRACE_S, READY, end_child, limit_memory, settle, start_child, tell_death
from zsic.core.film import Film, FilmError, Frame
from zsic.core.outcome import Failure, Outcome

BLOCK_BYTES = 4 * 2**20
"""What is asked of a file at once: few requests of an object store, and little more than is needed."""
_N_BLOCKS = 8  # kept: headers and pictures may lie far apart

# Decoders keep up to 16 frames for those to come, of up to 6 bytes a pixel, and a frame becomes RGB.
_BYTES_PER_PIXEL = 120
_SPARE_BYTES = 256 * 2**20

_LENGTH = struct.Struct("<Q")
_ALIVE_EVERY_S = 0.5
_YES, _NO = b"y", b"n"


@dataclass(frozen=True, slots=True)
class Projection:
    """One row of a video as it comes from its process."""

    index: int
    key: str
    n_bytes: int
    """What the file needed for it."""
    data: bytes | None
    """A PPM file; None for a row that was to be skipped."""


@dataclass(frozen=True, slots=True)
class Projector:
    """How videos are read.  A frame or a header that takes longer than `timeout_s` ends its video."""

    fps: float
    max_pixels: int
    upright: bool
    timeout_s: float

    def count_about(self, size: int, read: Callable[[int, int], bytes]) -> int | None:
        """How many rows a video will have, as its header tells; None if it does not.

        Never raises for what is wrong with the video, but what `read` raises.
        """
        messages = self._talk(size, read, lambda index: True)
        try:
            seconds = next(messages)
        except (FilmError, _KilledFromOutsideError):
            return None
        finally:
            messages.close()
        return max(1, round(seconds * self.fps)) if isinstance(seconds, float) else None

    def project(
        self, size: int, read: Callable[[int, int], bytes], skip: Callable[[int], bool]
    ) -> Iterator[Projection]:
        """Give the rows of a video of so many bytes, in order, read by ranges from `start` to `end`.

        Raises `FilmError` where it is damaged from some time on, or has ended its process, and what `read` raises.
        """
        begun = 0
        for may_retry in (True, False):
            try:
                for message in self._talk(size, read, _from(begun, skip)):
                    if isinstance(message, Projection) and message.index >= begun:
                        begun = message.index + 1
                        yield message
                return
            except _KilledFromOutsideError:  # by the kernel, for lack of memory, perhaps another's: once more
                if not may_retry:
                    raise _died(f"the decoder was killed by signal {signal.SIGKILL.value}") from None

    def _talk(
        self, size: int, read: Callable[[int, int], bytes], skip: Callable[[int], bool]
    ) -> Generator[Projection | float | None, None, None]:
        """First the seconds that the header tells, then the rows."""
        orders = {
            "size": size,
            "fps": self.fps,
            "max_pixels": self.max_pixels,
            "upright": self.upright,
            "timeout_s": self.timeout_s,
        }
        with _Child(orders, self.timeout_s) as child:
            while True:
                message = child.hear()
                match message["kind"]:
                    case "read":
                        data = read(message["start"], message["end"])
                        child.say(_LENGTH.pack(len(data)))
                        child.say(data)
                    case "seconds":
                        yield message["seconds"]
                    case "row":
                        row = Projection(message["index"], message["key"], message["n_bytes"], None)
                        if skip(row.index):
                            child.say(_NO)
                            yield row
                        else:
                            child.say(_YES)
                    case "picture":
                        yield replace(row, data=child.take(message["n_data"]))
                    case "failed":
                        raise FilmError(Failure(Outcome(message["outcome"]), message["detail"]))
                    case "end":
                        return


def _from(first: int, skip: Callable[[int], bool]) -> Callable[[int], bool]:
    """What is to be skipped when the rows before `first` have been given."""
    return lambda index: index < first or skip(index)


class _Child:
    """The process, as its parent sees it; whatever becomes of it is a `FilmError`."""

    def __init__(self, orders: dict[str, Any], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process, self._socket = start_child("zsic.core.projector", orders)
        self._socket.settimeout(timeout_s)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        end_child(self._process, self._socket)

    def hear(self) -> dict[str, Any]:
        """What it says next."""
        with self._explaining():
            message: dict[str, Any] = json.loads(self._answers.readline())
            if message["kind"] not in _FIELDS or message.keys() != _FIELDS[message["kind"]]:
                raise ValueError
            return message

    def say(self, data: bytes) -> None:
        with self._explaining():
            self._socket.sendall(data)

    def take(self, n_bytes: int) -> bytes:
        """So many bytes of what it sends."""
        with self._explaining():
            data = self._answers.read(n_bytes)
            if len(data) < n_bytes:
                raise EOFError
            return data

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise _died(f"the decoder took longer than {self._timeout_s:g} s") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError):  # it is gone, or out of its mind
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # for the word of the kernel, which may come after the end of the socket
            code = self._process.poll()
            raise (_KilledFromOutsideError() if code == -signal.SIGKILL else _died(tell_death(code))) from None


_FIELDS = {
    kind: {"kind", *fields}
    for kind, fields in {
        "read": ("start", "end"),
        "seconds": ("seconds",),
        "alive": (),
        "row": ("index", "key", "n_bytes"),
        "picture": ("n_data",),
        "failed": ("outcome", "detail"),
        "end": (),
    }.items()
}
"""What the child may say."""


class _KilledFromOutsideError(Exception):
    pass


def _died(detail: str) -> FilmError:
    return FilmError(Failure(Outcome.DECODER_DIED, detail))


class _Parent:
    """The parent, as its child sees it; it is waited for without an end."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._socket, self._timeout_s = connection, timeout_s
        self._answers = connection.makefile("rb")
        self._told = time.monotonic()

    def tell(self, kind: str, **fields: object) -> None:
        # The parent kills what takes too long; where there is none any more, the kernel does.
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._socket.sendall(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        self._told = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s + GRACE_S)

    def tell_alive(self) -> None:
        """Say, now and then, that something is being done."""
        if time.monotonic() - self._told > min(_ALIVE_EVERY_S, self._timeout_s / 4):
            self.tell("alive")

    def send(self, frame: Frame) -> None:
        """Offer a row, and send its picture if it is wanted."""
        self.tell("row", index=frame.index, key=frame.key, n_bytes=frame.n_bytes)
        if self.take(1) == _YES:
            pixels_HW3 = frame.pixels_HW3
            height, width = pixels_HW3.shape[:2]
            head = f"P6\n{width} {height}\n255\n".encode()
            self.tell("picture", n_data=len(head) + pixels_HW3.nbytes)
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._socket.sendall(head)
            self._socket.sendall(pixels_HW3.data)
            signal.setitimer(signal.ITIMER_REAL, self._timeout_s + GRACE_S)

    def read(self, start: int, end: int) -> bytes:
        """A range of the file."""
        self.tell("read", start=start, end=end)
        return self.take(_LENGTH.unpack(self.take(_LENGTH.size))[0])

    def take(self, n_bytes: int) -> bytes:
        signal.setitimer(signal.ITIMER_REAL, 0)
        data = self._answers.read(n_bytes)
        if len(data) < n_bytes:
            sys.exit(0)  # it is gone, or wants no more
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s + GRACE_S)
        return data


class _File(io.RawIOBase):
    """The video, as blocks that the parent reads."""

    def __init__(self, parent: _Parent, size: int) -> None:
        super().__init__()
        self._parent, self._size = parent, size
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, n_bytes: int | None = -1) -> bytes:
        """Read at most to the end of a block, and at least a byte but at the end."""
        if n_bytes == 0 or not 0 <= self._at < self._size:
            return b""
        number, begin = divmod(self._at, BLOCK_BYTES)
        block = self._block(number)
        data = block[begin:] if n_bytes is None or n_bytes < 0 else block[begin : begin + n_bytes]
        self._at += len(data)
        return data

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK_BYTES
            self._blocks[number] = self._parent.read(start, min(start + BLOCK_BYTES, self._size))
            if len(self._blocks) > _N_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


def _live(orders: dict[str, Any]) -> None:
    """The life of the child: it shows its one video."""
    settle()
    import av  # noqa: F401  What it takes to load is not the video's memory.

    more_bytes = _BYTES_PER_PIXEL * orders["max_pixels"] + _N_BLOCKS * BLOCK_BYTES + _SPARE_BYTES
    limit_memory(more_bytes)
    with socket.socket(fileno=orders["socket"]) as connection:
        connection.sendall(READY)
        parent = _Parent(connection, orders["timeout_s"])
        try:
            _show(parent, orders)
        except FilmError as error:
            parent.tell("failed", outcome=error.failure.outcome, detail=error.failure.detail)
        except MemoryError:
            detail = f"the decoder asked for more memory than {more_bytes // 2**20} MiB"
            parent.tell("failed", outcome=Outcome.DECODER_DIED, detail=detail)
        else:
            parent.tell("end")


def _show(parent: _Parent, orders: dict[str, Any]) -> None:
    file = _File(parent, orders["size"])
    film = Film(cast(IO[bytes], file), max_pixels=orders["max_pixels"], upright=orders["upright"])
    parent.tell("seconds", seconds=film.seconds)
    for frame in film.frames(orders["fps"]):
        if frame is None:
            parent.tell_alive()
        else:
            parent.send(frame)


if __name__ == "__main__":
    _live(json.loads(sys.argv[1]))
