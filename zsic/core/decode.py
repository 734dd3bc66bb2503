"""From the bytes of one file to its picture, or to the reason why there is none.

The only place that hands foreign bytes to Pillow.  Formats are an allow-list, by signature; sizes are checked
from the header, before anything is decoded; whatever a decoder raises becomes a `DecodeError`.  All of it may
be called from several threads at once.

Two of Pillow's process-wide switches stay as they are.  `ImageFile.LOAD_TRUNCATED_IMAGES` would hide damage.
`Image.MAX_IMAGE_PIXELS` is not the limit here (`decode.max_pixels` is), but some openers allocate before they
can be asked for a size, and it is what stops them: without it a GIF of 60 bytes takes 4 GB (measured).
"""

import io
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from zsic.core.header import has_bad_checksum, has_too_many_parts, sniff, webp_size
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import DecodeSpec

MAX_SIDE = 65_500
"""Pixels; what libjpeg can hold, and room enough for every other format."""

_MAX_INT32 = 2**31 - 1  # of the columns width and height

# A progressive JPEG is decoded whole once a scan, so a short file can keep a decoder busy for hours.
# Encoders write about ten scans.
_MAX_SCANS = 100
# Pillow joins EXIF segments one by one, in quadratic time: 64 MB of short ones take minutes.
_MAX_EXIF_SEGMENTS = 100
# A JPEG has about 30 segments, or 250 with the largest of profiles; a PNG of 64 MB has 8,000 chunks; the XMP of a
# GIF is of some thousand blocks.
_MAX_PARTS = 100_000
_MAX_SEGMENTS = 10_000

# The other formats let a header go on as long as the file does, too, and Pillow reads it piece by piece.  64 MiB of
# JPEG segments of full size are read in 4,100 pieces.
_MAX_HEADER_READS = 2**15

_MAX_PPM_HEADER = 18

# Plugins are called themselves, not through `Image.open`, which turns all their reasons into one and may load
# the other forty.  A JPEG of several pictures (MPO) is its first one.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PPM": PpmImageFile,
}
if features.check("webp"):
    _OPENERS["WEBP"] = WebPImageFile
if features.check("avif"):
    _OPENERS["AVIF"] = AvifImagePlugin.AvifImageFile
    # One thread a picture: tasks reserve their CPUs, and Pillow would take all of the machine's for each.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1

TRANSPOSITIONS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture with this EXIF orientation is set upright."""


class DecodeError(Exception):
    """The file has no picture for us.  Becomes a row, never the end of a run."""

    def __init__(self, failure: Failure, width: int | None = None, height: int | None = None) -> None:
        super().__init__(failure, width, height)
        self.failure = failure
        self.width = width
        self.height = height

    def __str__(self) -> str:
        return f"{self.failure.outcome}: {self.failure.detail}"


class _File(io.BytesIO):
    """The bytes of a file, to be read in so many pieces and no more."""

    reads_left: float = _MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise _EndlessHeaderError
        return super().read(size)


class _EndlessHeaderError(Exception):
    pass


def decode(data: bytes, spec: DecodeSpec) -> Image.Image:
    """Decode the first picture of a file to RGB, 8 bit, upright.

    The pixels are those of transformers' `load_image`, which is Pillow's `convert("RGB")`: alpha is dropped,
    colour profiles are ignored.  One difference is meant: 16-bit grey is scaled, where Pillow makes all above
    255 white.  `exif_orientation` off does not keep Pillow from turning TIFF.
    Raises `DecodeError`, and nothing else, on any bytes.
    """
    return load(inspect(data, spec), spec)


def inspect(data: bytes, spec: DecodeSpec) -> ImageFile.ImageFile:
    """Open a file and hold its header against the limits; no pixel is decoded yet.  Raises `DecodeError`."""
    if not data:
        raise DecodeError(Failure(Outcome.EMPTY, "no bytes"))
    # Uncompressed, a picture has as many bytes as its pixels need, and these have their own limit.
    most_bytes = max(spec.max_bytes, _MAX_PPM_HEADER + 3 * spec.max_pixels) if data[:2] == b"P6" else spec.max_bytes
    if len(data) > most_bytes:
        detail = f"{len(data)} bytes, more than decode.max_bytes, {spec.max_bytes}"
        raise DecodeError(Failure(Outcome.TOO_LARGE, detail))
    name, is_image = sniff(data)
    if not is_image:
        detail = f"begins like {name}" if name else "begins like no image format"
        if name == "video":
            detail = "begins like a video; source.fps (--fps) takes its frames"
        raise DecodeError(Failure(Outcome.NOT_AN_IMAGE, detail))
    if name not in _OPENERS:
        raise DecodeError(Failure(Outcome.UNSUPPORTED, f"{name} is not decoded"))
    if name == "WEBP" and (size := webp_size(data)):
        # Its opener allocates three canvases at once.
        _check_size(name, size, spec)
    if name == "JPEG" and len(data) > 2**20 and data.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS:
        raise DecodeError(Failure(Outcome.CORRUPT, f"JPEG: more than {_MAX_EXIF_SEGMENTS} EXIF segments"))
    most = _MAX_SEGMENTS if name == "JPEG" else _MAX_PARTS
    if len(data) > 4 * most and has_too_many_parts(name, data, most):
        raise DecodeError(Failure(Outcome.CORRUPT, f"{name}: more than {most} parts beside its pixels"))
    file = _File(data)
    try:
        image = _OPENERS[name](file)
    except _EndlessHeaderError:
        failure = Failure(Outcome.CORRUPT, f"{name}: a header of more than {_MAX_HEADER_READS} pieces")
        raise DecodeError(failure) from None
    except Exception as error:  # hostile bytes make openers raise anything
        raise DecodeError(_explain(name, error)) from error
    file.reads_left = inf  # some decoders take a byte at a time
    _check_size(name, displayed_size(image, spec), spec)
    if "progressive" in image.info and data.count(b"\xff\xda") > _MAX_SCANS:
        failure = Failure(Outcome.CORRUPT, f"JPEG: more than {_MAX_SCANS} scans")
        raise DecodeError(failure, *displayed_size(image, spec))
    if name == "PNG" and has_bad_checksum(data):
        raise DecodeError(Failure(Outcome.CORRUPT, "PNG: bad checksum"), *displayed_size(image, spec))
    if image.mode in ("F", "I"):
        what = "floating-point" if image.mode == "F" else "32-bit or signed"
        failure = Failure(Outcome.UNSUPPORTED, f"{name}: {what} pixels are not decoded")
        raise DecodeError(failure, *displayed_size(image, spec))
    return image


def load(image: ImageFile.ImageFile, spec: DecodeSpec) -> Image.Image:
    """Decode what `inspect` opened, to upright RGB.  Raises `DecodeError`."""
    try:
        image.load()
        rgb = _to_rgb(image)
        turn = orientation(image, spec)
        return rgb if turn == 1 else rgb.transpose(TRANSPOSITIONS[turn])
    except Exception as error:  # hostile bytes make decoders raise anything
        raise DecodeError(_explain(str(image.format), error), *displayed_size(image, spec)) from error


def orientation(image: ImageFile.ImageFile, spec: DecodeSpec) -> int:
    """EXIF orientation still to be applied, 1 to 8; 1 where there is none, or none that makes sense."""
    # Pillow turns TIFF itself, when it loads them.
    if not spec.exif_orientation or image.format == "TIFF":
        return 1
    try:
        # The method of `PngImageFile` would load the picture to find EXIF after the pixels.
        turn = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return int(turn) if turn in TRANSPOSITIONS else 1
    except Exception:  # noqa: BLE001  A damaged EXIF raises anything, and turns nothing.
        return 1


def displayed_size(image: ImageFile.ImageFile, spec: DecodeSpec) -> tuple[int, int]:
    """Width and height of the picture when it stands upright."""
    width, height = image.size
    return (height, width) if orientation(image, spec) >= 5 else (width, height)


def _check_size(name: str, size: tuple[int, int], spec: DecodeSpec) -> None:
    width, height = size
    if not (0 < width <= _MAX_INT32 and 0 < height <= _MAX_INT32):
        raise DecodeError(Failure(Outcome.CORRUPT, f"{name}: impossible size"))
    if width * height > spec.max_pixels:
        detail = f"{name}: {width} x {height}, more than decode.max_pixels, {spec.max_pixels}"
        raise DecodeError(Failure(Outcome.TOO_MANY_PIXELS, detail), width, height)
    if max(width, height) > MAX_SIDE:
        detail = f"{name}: {width} x {height}, more than {MAX_SIDE} on a side"
        raise DecodeError(Failure(Outcome.TOO_MANY_PIXELS, detail), width, height)


def _to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode == "La":  # premultiplied; Pillow has no direct way
        return image.convert("LA").convert("RGB")
    # It would be dropped anyway, with a warning on some palettes.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _from_16_bit(image: ImageFile.ImageFile) -> Image.Image:
    """Scale grey of 16 (or, in some TIFF, 12) bits to 8, rounded."""
    grey_HW: npt.NDArray[Any] = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(ExifTags.Base.BitsPerSample) == (12,):
        grey_HW = grey_HW << 4 | grey_HW >> 8
    # Rounded without a type wider than 16 bits: pictures may be large.
    whole_HW, rest_HW = np.divmod(grey_HW, 257)
    return Image.fromarray((whole_HW + (rest_HW > 128)).astype(np.uint8)).convert("RGB")


# What Pillow says, in our words: its own hold addresses, and change with its version.
_WORDS = (
    ("truncated", Outcome.CORRUPT, "cut short"),
    ("checksum", Outcome.CORRUPT, "bad checksum"),
    ("data too large", Outcome.CORRUPT, "a text or profile that unpacks to too much"),
    ("cannot handle", Outcome.UNSUPPORTED, "pixels of a kind that is not decoded"),
    ("unsupported", Outcome.UNSUPPORTED, "pixels of a kind that is not decoded"),
    ("unknown pixel mode", Outcome.UNSUPPORTED, "pixels of a kind that is not decoded"),
)


def _explain(name: str, error: Exception) -> Failure:
    if isinstance(error, Image.DecompressionBombError):
        return Failure(Outcome.TOO_MANY_PIXELS, f"{name}: more pixels than Pillow opens")
    if isinstance(error, MemoryError):
        return Failure(Outcome.CORRUPT, f"{name}: asks for more memory than there is")
    text = str(error).lower()
    for part, outcome, words in _WORDS:
        if part in text:
            return Failure(outcome, f"{name}: {words}")
    return Failure(Outcome.CORRUPT, f"{name}: damaged")
