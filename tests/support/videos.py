"""Small videos, whose frames tell by their grey which they are."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

STEP = 6
"""Grey levels between a frame and the next."""
WIDTH, HEIGHT = 64, 48

KINDS = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "mpeg4"),
    "mkv": ("matroska", "libx264"),
    "webm": ("webm", "libvpx-vp9"),
    "avi": ("avi", "mpeg4"),
}
"""A container and a codec for each of some endings."""


def make_video(
    ending: str = "mp4",
    n_frames: int = 30,
    *,
    rate: int = 10,
    pts: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    noise: bool = False,
    **options: str,
) -> bytes:
    """Frame `i` is grey `STEP * i`, darker in its upper left quarter; `pts` are in tenths of a second."""
    container, codec = KINDS[ending]
    file = io.BytesIO()
    rng = np.random.default_rng(n_frames)
    with av.open(file, "w", format=container) as video:
        stream = video.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if not n_frames:
            video.start_encoding()
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 10)
        for i in range(n_frames):
            pixels = np.full((size[1], size[0], 3), STEP * i % 250, np.uint8)
            if noise:
                pixels[HEIGHT // 2 :] = rng.integers(0, 255, (size[1] - HEIGHT // 2, size[0], 3))
            pixels[: size[1] // 2, : size[0] // 2] //= 2
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 10)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return file.getvalue()


def make_streamable(folder: Path, n_frames: int = 30) -> bytes:
    """An MP4 that has its header in front, and noise in its frames."""
    path = folder / "streamable.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as video:
        stream = video.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(n_frames):
            pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        video.mux(stream.encode())
    return path.read_bytes()


def make_sound() -> bytes:
    """An MP4 with sound alone."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("aac", rate=8000)
        for at in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 8000, at * 1024
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return file.getvalue()


def turn(mp4: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """The same video as a phone marks it that was held otherwise; (a, b, c, d) of the display matrix."""
    at = mp4.index(b"tkhd") + 4 + 40  # after version, times, ids, duration, layer and volume
    a, b, c, d = (value * 2**16 for value in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 2**30)
    assert mp4[at : at + 36] == b"".join(
        value.to_bytes(4, "big", signed=True) for value in (2**16, 0, 0, 0, 2**16, 0, 0, 0, 2**30)
    )
    return mp4[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in numbers) + mp4[at + 36 :]


def decode_all(data: bytes) -> list[npt.NDArray[np.uint8]]:
    """Every frame as FFmpeg gives it, RGB."""
    how = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    with av.open(io.BytesIO(data)) as video:
        return [frame.to_ndarray(format="rgb24", interpolation=how) for frame in video.decode(video=0)]
