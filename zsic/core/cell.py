"""Decoding in a process of its own, which an image may kill, or hang in, or fill: it costs that image, and no other.

A cell is a child process (`zsic.core.child`) that runs `prepare` and nothing else: images go in, pixels come out.

A cell costs 0.3 ms an image at 224 x 224, and to start it 2 s of CPU and 240 MB, or 0.4 s and 50 MB with
`decode.mode: pil`, which needs no torch (measured).
"""

import contextlib
import io
import json
import signal
import socket
import struct
import subprocess
import sys
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
from PIL import Image

from zsic.core.child import (
    GRACE_S,
    READY,
    Child,
    end_child,
    fork_child,
    limit_memory,
    settle,
    start_child,
    tell_death,
)
from zsic.core.decode import DecodeError
from zsic.core.outcome import Failure, Outcome
from zsic.core.preprocess import Geometry, Pixels, Prepared, prepare
from zsic.core.spec import DecodeSpec

_LENGTH = struct.Struct("<Q")

# Address space that a picture within the limits may take.  The worst are WebP, with 16 bytes a pixel, and 16-bit
# PNG, with 13 (measured at the limit).
_BYTES_PER_PIXEL = 20
_BYTES_PER_BYTE = 4
_SPARE_BYTES = 64 * 2**20


class Cell:
    """A child process to decode in, one image at a time.  It starts with its first image, and again after its end.

    With `fork` the child is a copy of this process, in which torch is imported already (see `fork_child`).
    """

    def __init__(self, geometry: Geometry, spec: DecodeSpec, timeout_s: float, *, fork: bool = False) -> None:
        self._geometry = geometry
        self._spec = spec
        self._timeout_s = timeout_s
        self._fork = fork
        self._child: Child | None = None
        self._socket: socket.socket | None = None
        self.n_started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the child, where there is one."""
        return self._child.pid if self._child else None

    def prepare(self, data: bytes, out_HW3: Pixels | None = None) -> Prepared:
        """Do what `zsic.core.preprocess.prepare` does, to the bit.

        Raises `DecodeError` with the outcome `decoder_died` too, and `IncompleteError` if no child can be started.
        """
        try:
            return self._try(data, out_HW3)
        except _KilledFromOutsideError:
            pass  # by the kernel, for lack of memory, perhaps another's: the image gets a second chance
        try:
            return self._try(data, out_HW3)
        except _KilledFromOutsideError:
            raise _died(f"the decoder was killed by signal {signal.SIGKILL.value}") from None

    def close(self) -> None:
        """End the child."""
        if self._child is not None and self._socket is not None:
            end_child(self._child, self._socket)
        self._child = self._socket = None

    def start(self) -> None:
        """Start the child if there is none, or if it has ended."""
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()

    def _try(self, data: bytes, out_HW3: Pixels | None) -> Prepared:
        self.start()
        assert self._socket is not None
        try:
            self._socket.sendall(_LENGTH.pack(len(data)))
            self._socket.sendall(data)
            with self._socket.makefile("rb") as answers:
                return self._receive(answers, out_HW3)
        except TimeoutError:
            self.close()
            raise _died(f"the decoder took longer than {self._timeout_s:g} s") from None
        except (OSError, ValueError, KeyError, TypeError):  # it is gone, or out of its mind
            raise self._explain_death() from None

    def _start(self) -> None:
        orders = {
            "geometry": self._geometry.to_dict(),
            "spec": self._spec.model_dump(),
            "timeout_s": self._timeout_s,
        }
        if self._fork:
            try:
                self._child, self._socket = fork_child(lambda connection: _serve(orders, connection))
            except OSError:
                self._fork = False
        if not self._fork:
            self._child, self._socket = start_child("zsic.core.cell", orders)
        assert self._socket is not None
        self.n_started += 1
        self._socket.settimeout(self._timeout_s)

    def _receive(self, answers: io.BufferedReader, out_HW3: Pixels | None) -> Prepared:
        answer = json.loads(answers.readline())
        width, height = answer["width"], answer["height"]
        if answer["outcome"] is not None:
            raise DecodeError(Failure(Outcome(answer["outcome"]), answer["detail"]), width, height)
        pixels_HW3 = np.empty((*self._geometry.size, 3), np.uint8)
        if answers.readinto(pixels_HW3.data) < pixels_HW3.nbytes:
            raise EOFError
        if out_HW3 is None:
            return Prepared(pixels_HW3, width, height)
        out_HW3[:] = pixels_HW3
        return Prepared(out_HW3, width, height)

    def _explain_death(self) -> Exception:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1)  # for the word of the kernel, which may come after the end of the socket
        code = self._child.poll()
        self.close()
        if code == -signal.SIGKILL:
            return _KilledFromOutsideError()
        return _died(tell_death(code))


class Cells:
    """So many cells, for as many threads."""

    def __init__(self, n: int, geometry: Geometry, spec: DecodeSpec, timeout_s: float, *, fork: bool = False) -> None:
        self._cells = [Cell(geometry, spec, timeout_s, fork=fork) for _ in range(n)]
        self._idle: SimpleQueue[Cell] = SimpleQueue()
        for cell in self._cells:
            self._idle.put(cell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for cell in self._cells:
            cell.close()

    def start(self) -> None:
        """Start all children now rather than with their first images."""
        for cell in self._cells:
            cell.start()

    def prepare(self, data: bytes, out_HW3: Pixels | None = None) -> Prepared:
        """Do what `Cell.prepare` does, in whichever is idle."""
        cell = self._idle.get()
        try:
            return cell.prepare(data, out_HW3)
        finally:
            self._idle.put(cell)


class _KilledFromOutsideError(Exception):
    pass


def _died(detail: str) -> DecodeError:
    return DecodeError(Failure(Outcome.DECODER_DIED, detail))


def _serve(orders: dict[str, Any], connection: socket.socket) -> None:
    """Child main loop: decode images until the parent closes the socket or dies."""
    settle()
    geometry, spec = Geometry.from_dict(orders["geometry"]), DecodeSpec(**orders["spec"])
    if spec.mode == "exact":
        import torch

        torch.set_num_threads(1)
    _decode_once(geometry, spec)
    memory_mib = _limit_memory(spec)
    with connection, connection.makefile("rb") as images:
        connection.sendall(READY)
        while length := images.read(_LENGTH.size):
            data = images.read(_LENGTH.unpack(length)[0])
            # The parent kills what takes too long; where there is none any more, the kernel does.
            signal.setitimer(signal.ITIMER_REAL, orders["timeout_s"] + GRACE_S)
            answer = _answer(data, geometry, spec, memory_mib)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for part in answer:
                connection.sendall(part)


def _decode_once(geometry: Geometry, spec: DecodeSpec) -> None:
    """Load now what the libraries load with their first picture: later it would count as the picture's memory."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    prepare(file.getvalue(), geometry, spec)


def _limit_memory(spec: DecodeSpec) -> int:
    """Forbid more address space than there is now and the largest allowed picture takes; returns the latter, in MiB."""
    more_bytes = _BYTES_PER_PIXEL * spec.max_pixels + _BYTES_PER_BYTE * spec.max_bytes + _SPARE_BYTES
    limit_memory(more_bytes)
    return more_bytes // 2**20


def _answer(data: bytes, geometry: Geometry, spec: DecodeSpec, memory_mib: int) -> tuple[bytes, bytes | memoryview]:
    """What the parent is told: a line of JSON, and the pixels."""
    too_much = Failure(Outcome.DECODER_DIED, f"the decoder asked for more memory than {memory_mib} MiB")
    width = height = None
    try:
        prepared = prepare(data, geometry, spec)
    except DecodeError as error:
        failure = too_much if isinstance(error.__cause__, MemoryError) else error.failure
        width, height = error.width, error.height
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch's way to say it
            raise
        failure = too_much
    else:
        return _line(prepared.width, prepared.height, None), prepared.pixels_HW3.data
    return _line(width, height, failure), b""


def _line(width: int | None, height: int | None, failure: Failure | None) -> bytes:
    outcome, detail = (failure.outcome, failure.detail) if failure else (None, None)
    return json.dumps({"width": width, "height": height, "outcome": outcome, "detail": detail}).encode() + b"\n"


if __name__ == "__main__":
    _orders = json.loads(sys.argv[1])
    _serve(_orders, socket.socket(fileno=_orders["socket"]))
