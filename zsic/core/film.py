"""From a video file to its frames at a rate: which of them is shown when, upright, as RGB.

The only place that hands foreign bytes to FFmpeg, by PyAV, and it runs in a process of its own (`zsic.core.projector`).
Containers and codecs are allow-lists; nothing but the one file is ever opened, whatever it refers to.  Rows are counted
from the first frame: row `k` is what is shown at `k / fps` seconds, the last frame that began by then, however far
apart frames are.  So a frame may be in several rows, or in none.

Shape legend: H W pixels.
"""

import errno
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from zsic.core.outcome import Failure, Outcome

MAX_HOURS = 100
"""So far the times of rows sort as text; longer videos exist only where time stamps are damaged."""

_READ_BYTES = 2**20
_MAX_BOXES = 64  # of an MP4 before its last; each is a read, and one in fragments has thousands

_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_LATER_ISO_BOXES = (
    *_ISO_BOXES,
    b"moof",
    b"mfra",
    b"sidx",
    b"styp",
    b"uuid",
    b"meta",
    b"udta",
    b"emsg",
    b"ssix",
    b"prft",
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

CODECS = frozenset(
    (
        "av1", "dnxhd", "dvvideo", "ffv1", "flv1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video",
        "mpeg4", "msmpeg4v2", "msmpeg4v3", "prores", "rawvideo", "theora", "vc1", "vp6f", "vp8", "vp9", "wmv1",
        "wmv2", "wmv3",
    )
)  # fmt: skip
"""FFmpeg's names of the codecs that are decoded."""

_BROKEN_HEADER = "the video breaks off within its header"


class FilmError(Exception):
    """The video has no frames for us, or none from here on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(frozen=True)
class Frame:
    """One row of a video."""

    index: int
    key: str
    """Its time, as `time_key` writes it."""
    n_bytes: int
    """What the file needed for it, and for all frames since the row before."""
    _picture: "_Picture"

    @property
    def pixels_HW3(self) -> npt.NDArray[np.uint8]:
        """Upright RGB; the same array for all rows that show one frame.  Raises `FilmError`."""
        try:
            return self._picture.pixels_HW3
        except Exception as error:
            raise _explain(error, f"damaged video, from {self.key} on") from error


@dataclass(frozen=True)
class _Picture:
    """A decoded frame, made RGB when it is asked for."""

    frame: Any
    matrix: tuple[int, int, int, int]

    @cached_property
    def pixels_HW3(self) -> npt.NDArray[np.uint8]:
        from av.video.reformatter import Interpolation

        # Without these flags colours are not interpolated, and rounded as the CPU likes; at 2 ms a megapixel.
        how = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        pixels_HW3 = self.frame.to_ndarray(format="rgb24", interpolation=how, threads=1)
        return np.ascontiguousarray(_turn(pixels_HW3, self.matrix))


class Film:
    """A video that is open.  Raises `FilmError` for what is none; `file` is read here and there, and not closed."""

    def __init__(self, file: IO[bytes], *, max_pixels: int, upright: bool, codecs: Collection[str] = CODECS) -> None:
        import av
        from av.stream import Discard, Disposition

        av.logging.set_level(None)  # what is wrong becomes a row
        self._max_pixels, self._upright = max_pixels, upright
        head = _read_at(file, 0, 64)
        if not head:
            _fail(Outcome.EMPTY, "no bytes")
        container = sniff_container(head)
        if container is None:
            _fail(Outcome.BAD_SHARD, "begins like no video (MP4, MOV, MKV, WebM or AVI)")
        self._is_cut = is_cut_short(file, container)
        file.seek(0)
        try:
            self._container: Any = av.open(file, format=container, buffer_size=_READ_BYTES, io_open=_refuse)
        except Exception as error:  # hostile bytes make demuxers raise anything
            raise _explain(error, _BROKEN_HEADER if self._is_cut else "damaged header of a video") from error
        stream: Any = self._container.streams.best("video")
        has_picture = stream is not None and Disposition.attached_pic not in stream.disposition
        if self._is_cut and not (has_picture and stream.codec_context is not None):
            _fail(Outcome.BAD_SHARD, _BROKEN_HEADER)
        if not has_picture:
            _fail(Outcome.EMPTY, "the file has no moving pictures")
        self._stream = stream
        self._check(codecs)
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = Discard.all  # it need not even be read

    @property
    def seconds(self) -> float | None:
        """How long it says it is."""
        return self._container.duration / 1e6 if self._container.duration else None

    def _check(self, codecs: Collection[str]) -> None:
        codec: Any = self._stream.codec_context
        if codec is None or codec.codec.canonical_name not in codecs:
            name = codec.codec.canonical_name if codec is not None else "an unknown codec"
            _fail(Outcome.UNSUPPORTED, f"video: {name} is not decoded")
        self._check_size(codec.width, codec.height)
        codec.thread_count = 1  # tasks reserve their CPUs
        # A decoder would conceal what is damaged, by grey or by what was there before.
        codec.options = {"max_pixels": str(self._max_pixels), "err_detect": "explode"}

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            _fail(
                Outcome.TOO_MANY_PIXELS,
                f"video: {width} x {height}, more than decode.max_pixels, {self._max_pixels}",
            )

    def frames(self, fps: float, *, max_hours: int = MAX_HOURS) -> Iterator[Frame | None]:
        """Give the rows in order, and None whenever a frame has been decoded.

        Raises `FilmError` where the video is damaged from some time on; the rows before come all the same.
        """
        rate = Fraction(str(fps))
        index = n_bytes = 0
        reel = _Reel(self._container, self._stream, is_cut=self._is_cut)
        for stop, frame in reel.shown():
            yield None
            self._check_size(frame.width, frame.height)
            picture = _Picture(frame, _matrix_of(frame) if self._upright else _IDENTITY)
            while index < stop * rate:
                if index >= max_hours * 3600 * rate:
                    _fail(Outcome.BAD_SHARD, f"the video goes on for more than {max_hours} hours")
                yield Frame(index, time_key(index, fps), reel.n_bytes - n_bytes, picture)
                n_bytes = reel.n_bytes
                index += 1
        if reel.error is not None:
            words = "the video breaks off at" if self._is_cut else "damaged video, from"
            raise _explain(reel.error, f"{words} {time_key(index, fps)}{'' if self._is_cut else ' on'}")
        if self._is_cut:
            _fail(Outcome.BAD_SHARD, f"the video breaks off at {time_key(index, fps)}")
        if not index:
            _fail(Outcome.EMPTY, "the video has no frames")


class _Reel:
    """One run through the frames of a stream, in the order in which they are shown."""

    def __init__(self, container: Any, stream: Any, *, is_cut: bool) -> None:
        self._container, self._stream, self._is_cut = container, stream, is_cut
        self.n_bytes = 0
        """Of packets that were decoded."""
        self.error: Exception | None = None
        """What ended the run before the end."""

    def shown(self) -> Iterator[tuple[Fraction, Any]]:
        """Give each frame with the seconds until which it is shown, from the end of the one before."""
        held: tuple[Fraction, Any] | None = None
        origin: Fraction | None = None
        for frame in self._decode():
            at = None if frame.pts is None else frame.pts * frame.time_base
            if held is None:
                origin = at or Fraction(0)
                held = Fraction(0), frame
                continue
            before, shown = held
            # Time that stands still, or runs backwards, gives way to the frame that comes later.
            start = before + self._seconds(shown) if at is None or origin is None else max(at - origin, before)
            yield start, shown
            held = start, frame
        if held is not None:
            yield held[0] + self._seconds(held[1]), held[1]

    def _decode(self) -> Iterator[Any]:
        import av

        begun = False
        first_error: Exception | None = None
        try:
            for packet in self._container.demux(self._stream):
                if self._is_cut and not packet.size:
                    return  # what the decoder still holds has gaps
                if packet.is_corrupt:
                    self.error = ValueError("a packet is cut short")
                    return
                self.n_bytes += packet.size
                try:
                    frames = packet.decode()
                except av.InvalidDataError as error:
                    # What was cut out of a longer video may begin with frames that refer to what is gone.
                    if begun:
                        raise
                    first_error = first_error or error
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        self.error = ValueError("a frame is damaged")
                        return
                    begun = True
                    yield frame
        except Exception as error:  # noqa: BLE001  Hostile bytes make decoders raise anything; it is told at the end.
            self.error = error
        if not begun:
            self.error = self.error or first_error

    def _seconds(self, frame: Any) -> Fraction:
        """How long a frame is shown that has no successor."""
        if frame.duration and frame.time_base:
            return Fraction(frame.duration * frame.time_base)
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / Fraction(rate) if rate else Fraction(1, 25)


def time_key(index: int, fps: float) -> str:
    """The time of a row, in thousandths of a second, cut off: sorts as text.

    >>> time_key(0, 1), time_key(167, 2), time_key(1, 30)
    ('00:00:00.000', '00:01:23.500', '00:00:00.033')
    """
    ms = index * 1000 // Fraction(str(fps))
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}.{ms % 1000:03d}"


def sniff_container(head: bytes) -> str | None:
    r"""FFmpeg's name of the container that bytes begin like; None is none that is read.

    FFmpeg is never asked: some of its formats are lists of other files to open.

    >>> sniff_container(b"\0\0\0\x20ftypisom"), sniff_container(b"#EXTM3U")
    ('mov', None)
    """
    if head[4:8] in _ISO_BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def is_cut_short(file: IO[bytes], container: str) -> bool:
    """Whether a file ends before its container says it does.

    FFmpeg takes the end of a Matroska or AVI file, and an MP4 that ends between two frames, for the end of the video.
    """
    size = file.seek(0, io.SEEK_END)
    if container == "matroska":
        return _matroska_end(file) > size
    at = 0
    for _ in range(_MAX_BOXES):
        if at >= size:
            break
        head = _read_at(file, at, 16)
        length = _box_bytes(head) if container == "mov" else _riff_bytes(head)
        if not length:
            return False  # to the end of the file, or nobody knows
        at += length
    return at > size


def _box_bytes(head: bytes) -> int:
    n = int.from_bytes(head[:4], "big") if head[4:8] in _LATER_ISO_BOXES else 0
    if n == 1:
        n = int.from_bytes(head[8:16], "big")
    return n if n >= 8 else 0


def _riff_bytes(head: bytes) -> int:
    n = int.from_bytes(head[4:8], "little")
    return 8 + n + n % 2 if head[:4] == b"RIFF" and n else 0


def _matroska_end(file: IO[bytes]) -> int:
    """Where the first segment ends by its header; 0 where it does not say."""
    head = _read_at(file, 0, 4096)
    at, n = _vint(head, 4)
    at += n
    if head[at : at + 4] != _SEGMENT:
        return 0
    at, n = _vint(head, at + 4)
    return at + n if n else 0


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """A number of EBML and where it ends; 0 stands for an unknown one, too."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return at + length, 0 if length > 8 or value == (1 << 7 * length) - 1 else value


def _read_at(file: IO[bytes], at: int, n_bytes: int) -> bytes:
    file.seek(at)
    return file.read(n_bytes)


_IDENTITY = (1, 0, 0, 1)


def _matrix_of(frame: Any) -> tuple[int, int, int, int]:
    """What the camera says of how it was held: (a, b, c, d) takes a point (x, y) to (ax + cy, bx + dy)."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return _IDENTITY
    numbers = np.frombuffer(bytes(data), np.int32)
    return int(numbers[0]), int(numbers[1]), int(numbers[3]), int(numbers[4])


def _turn(pixels_HW3: npt.NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Set a picture upright; what is no quarter turn or mirror image stays as it is."""
    a, b, c, d = matrix
    if not (b or c) and a and d:
        return pixels_HW3[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
    if not (a or d) and b and c:
        return pixels_HW3.swapaxes(0, 1)[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1]
    return pixels_HW3


def _explain(error: Exception, words: str) -> Exception:
    """Tell damage from a lack of memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return MemoryError()
    return FilmError(Failure(Outcome.BAD_SHARD, words))


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("a video may not open other files")


def _fail(outcome: Outcome, detail: str) -> NoReturn:
    raise FilmError(Failure(outcome, detail))
