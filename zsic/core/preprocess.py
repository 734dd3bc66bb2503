"""From the bytes of one image to the model's pixels, in transformers' geometry.

Three ways.  `pil` is transformers' PIL image processor to the bit; `exact` decodes JPEG with simplejpeg and resizes
with torch, and is the same up to rounding; `fast` is `exact`, but decodes large JPEG pictures to a fraction of their
size.  All stop at uint8: normalising belongs to the device.

Shapes: H W pixels of the result, h w of a picture on its way there; 3 is RGB.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Any, Literal, NamedTuple, Self, cast, get_args

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile

from zsic.core.decode import TRANSPOSITIONS, decode, displayed_size, inspect, load, orientation
from zsic.core.errors import ModelError
from zsic.core.spec import DecodeSpec

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Pixels = npt.NDArray[np.uint8]

_FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Resample)}
# Half of each filter's width, in pixels of the coarser grid.
_SUPPORT = {"nearest": 1, "box": 1, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}

# At a shortest edge of 224 a picture of 65,500 x 1 would be resized to 3 billion pixels and then cropped.
# Above this many only the crop is made; at 224 it takes an aspect ratio of 1:668 to get there.
MAX_RESIZED_PIXELS = 2**25

# Pillow hands out its pixels by two copies.  Above this many, resizing in place is worth more than speed.
_MAX_COPIED_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a picture of any size becomes one of the model's size: resize, then centre crop.

    Raises `ModelError` where the result would not have one fixed size.

    >>> Geometry(resize=256, resample="bicubic", crop=(224, 224)).resized(480, 640)
    (256, 341)
    """

    resize: int | tuple[int, int] | None
    """Pixels of the shortest edge, or exact (height, width); None leaves the picture as it is."""
    resample: Resample
    crop: tuple[int, int] | None
    """(height, width) cut from the centre, with black around pictures that are smaller; None cuts nothing."""

    def __post_init__(self) -> None:
        sizes = {
            "resize": (1, self.resize) if isinstance(self.resize, int) else self.resize,
            "crop": self.crop,
        }
        for field, size in sizes.items():
            if size is not None and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
                given = getattr(self, field)
                raise ModelError(f"geometry.{field} must be positive pixels, (height, width); got {given!r}")
        if self.resample not in _FILTERS:
            raise ModelError(f"geometry.resample must be one of {', '.join(_FILTERS)}; got {self.resample!r}")
        if self.crop is None and not isinstance(self.resize, tuple):
            raise ModelError(
                f"geometry.resize is {self.resize!r} without a crop, so each picture keeps its own shape; "
                "a batch needs one: give geometry.crop, or geometry.resize as (height, width)"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every result."""
        return self.crop or cast(tuple[int, int], self.resize)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize.  The long edge is truncated, not rounded, as in transformers."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        long = int(self.resize * long / short)
        return (long, self.resize) if width <= height else (self.resize, long)

    def offset(self, height: int, width: int) -> tuple[int, int]:
        """(top, left) of the crop in a resized picture; negative where the picture is smaller."""
        crop_height, crop_width = self.crop or (height, width)
        return (height - crop_height) // 2, (width - crop_width) // 2

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of what is kept of a picture of this size, in its own pixels.

        Reaches beyond the picture where there is black around it.
        """
        resized_height, resized_width = self.resized(height, width)
        top, left = self.offset(resized_height, resized_width)
        down, across = height / resized_height, width / resized_width
        return left * across, top * down, (left + self.size[1]) * across, (top + self.size[0]) * down

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `from_dict` reads it back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


class Prepared(NamedTuple):
    """The model's pixels of one image, and the size it had, upright."""

    pixels_HW3: Pixels
    width: int
    height: int


def prepare(data: bytes, geometry: Geometry, spec: DecodeSpec, out_HW3: Pixels | None = None) -> Prepared:
    """Decode one file and fit it to the model; into `out_HW3` where it is given.

    `exact` differs from `pil` by rounding alone: by less than 0.01 grey levels in the mean; `fast` by about half a
    level where it scales.  Both use as many threads as torch is set to.  Raises `DecodeError` on bytes that hold no
    picture, and leaves `out_HW3` as it was.
    """
    if spec.mode != "pil" and geometry.resample in ("bilinear", "bicubic"):
        pixels_HW3, (width, height) = _prepare_by_torch(data, geometry, spec)
    else:
        image = decode(data, spec)
        pixels_HW3, (width, height) = fit(image, geometry), image.size
    if out_HW3 is None:
        return Prepared(np.ascontiguousarray(pixels_HW3), width, height)
    out_HW3[:] = pixels_HW3
    return Prepared(out_HW3, width, height)


def fit(image: Image.Image, geometry: Geometry, *, max_resized_pixels: int = MAX_RESIZED_PIXELS) -> Pixels:
    """Resize and crop a picture: to the bit what transformers' PIL image processors do before they rescale.

    Above `max_resized_pixels` only the crop is made, which may differ from theirs by rounding.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    height, width = geometry.resized(image.height, image.width)
    if height * width > max_resized_pixels:
        return _fit_crop_alone(image, geometry)
    if geometry.resize is not None:
        image = image.resize((width, height), _FILTERS[geometry.resample])
    return _crop(image, geometry)


def _crop(image: Image.Image, geometry: Geometry) -> Pixels:
    if geometry.crop is not None:
        top, left = geometry.offset(image.height, image.width)
        # Pillow pads with black where the box is larger, just where transformers does.
        image = image.crop((left, top, left + geometry.crop[1], top + geometry.crop[0]))
    return np.array(image)


def _prepare_by_torch(data: bytes, geometry: Geometry, spec: DecodeSpec) -> tuple[Pixels, tuple[int, int]]:
    from zsic.core.resize import resize  # torch, which `pil` does without

    image = inspect(data, spec)
    decoded = _decode_jpeg(data, image, geometry, spec) or _read_ppm(data, image)
    if decoded is None:
        upright = load(image, spec)
        if upright.width * upright.height > _MAX_COPIED_PIXELS:
            return fit(upright, geometry), upright.size
        decoded = _Decoded(np.array(upright), (upright.height, upright.width), 1, upright.size)
    pixels_hw3, extent, turn, size = decoded
    height, width = geometry.resized(size[1], size[0])
    if height * width > MAX_RESIZED_PIXELS:  # never so of a JPEG that was scaled: that is larger still
        return fit(_set_upright(pixels_hw3, turn), geometry), size
    # The small result is turned, not the large picture.
    on_its_side = turn >= 5
    if geometry.resize is not None:
        pixels_hw3 = resize(pixels_hw3, height, width, geometry.resample, extent=extent, on_its_side=on_its_side)
    top, left = geometry.offset(height, width)
    if turn == 1 and top >= 0 and left >= 0:
        bottom, right = top + geometry.size[0], left + geometry.size[1]
        return pixels_hw3[top:bottom, left:right], size
    return _crop(_set_upright(pixels_hw3, turn), geometry), size


class _Decoded(NamedTuple):
    """A picture as it lies in its file."""

    pixels_hw3: Pixels
    extent: tuple[float, float]
    """(height, width) that it truly has, in these pixels."""
    turn: int
    """EXIF orientation still to be applied."""
    size: tuple[int, int]
    """(width, height) of the original, upright."""


def _decode_jpeg(data: bytes, image: ImageFile.ImageFile, geometry: Geometry, spec: DecodeSpec) -> _Decoded | None:
    """Decode a JPEG as it lies; None where Pillow is to decide.

    In mode `fast` a large one is decoded to an eighth to a half of its size, by leaving out frequencies.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    turn, size = orientation(image, spec), displayed_size(image, spec)
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:  # the limits were held against Pillow's reading of the header
            return None
        scaling = _scaling(geometry, size, turn) if spec.mode == "fast" and geometry.resize is not None else {}
        pixels_hw3 = simplejpeg.decode_jpeg(data, "RGB", **scaling)
    except ValueError:
        return None
    return _Decoded(pixels_hw3, _extent((height, width), pixels_hw3.shape[:2]), turn, size)


def _read_ppm(data: bytes, image: ImageFile.ImageFile) -> _Decoded | None:
    """Take the pixels of a PPM, which are its bytes; None where Pillow is to decide."""
    width, height = image.size
    n_bytes, offset = height * width * 3, image.tile[0].offset if image.format == "PPM" else 0
    if image.format != "PPM" or len(data) - offset < n_bytes:
        return None
    pixels_hw3 = np.frombuffer(data, np.uint8, n_bytes, offset).reshape(height, width, 3)
    return _Decoded(pixels_hw3.copy(), (height, width), 1, image.size)  # torch wants to be able to write


# Of a picture that is decoded to less than its size, so many times what it is resized to must be left: at twice, the
# difference is half a grey level in the mean; at once it would be 1.5, and 50 in places.
_LEAST_SCALED = 2


def _scaling(geometry: Geometry, size: tuple[int, int], turn: int) -> dict[str, int]:
    """What simplejpeg is to be asked for, so that enough is left of a picture of this upright (width, height)."""
    height, width = geometry.resized(size[1], size[0])
    if turn >= 5:
        height, width = width, height
    return {"min_height": _LEAST_SCALED * height, "min_width": _LEAST_SCALED * width, "min_factor": 2}


def _extent(original: tuple[int, int], decoded: tuple[int, int]) -> tuple[float, float]:
    """(height, width) in decoded pixels of a picture that libjpeg has scaled by eighths, or left as it was.

    It rounds up; resized as if it had not, the picture would be shifted by up to half a pixel.
    """
    for eighths in range(8, 0, -1):
        height, width = (n * eighths / 8 for n in original)
        if (ceil(height), ceil(width)) == decoded:
            return height, width
    return decoded


def _set_upright(pixels_hw3: Pixels, turn: int) -> Image.Image:
    image = Image.fromarray(pixels_hw3)
    return image if turn == 1 else image.transpose(TRANSPOSITIONS[turn])


def _fit_crop_alone(image: Image.Image, geometry: Geometry) -> Pixels:
    """Resize only what the crop will keep, so that memory does not grow with the aspect ratio."""
    height, width = geometry.resized(image.height, image.width)
    support = _SUPPORT[geometry.resample]
    x = _window(image.width, width, geometry.size[1], support)
    y = _window(image.height, height, geometry.size[0], support)
    part = image.crop((x.low, y.low, x.high, y.high))
    box = (x.start, y.start, x.stop, y.stop)
    part = part.resize((x.n_pixels, y.n_pixels), _FILTERS[geometry.resample], box)
    pixels_HW3 = np.zeros((*geometry.size, 3), np.uint8)
    pixels_HW3[y.at : y.at + y.n_pixels, x.at : x.at + x.n_pixels] = np.asarray(part)
    return pixels_HW3


class _Window(NamedTuple):
    """What one axis of a crop needs of the source: pixels `low` to `high`, and in these `start` to `stop`."""

    low: int
    high: int
    start: float
    stop: float
    at: int
    n_pixels: int


def _window(source: int, resized: int, crop: int, support: int) -> _Window:
    offset = (resized - crop) // 2
    first, last = max(offset, 0), min(offset + crop, resized)
    scale = source / resized
    # One more than the filter reaches: near a border Pillow weighs by what is there.
    reach = ceil(support * max(scale, 1)) + 1
    low, high = max(floor(first * scale) - reach, 0), min(ceil(last * scale) + reach, source)
    return _Window(low, high, first * scale - low, last * scale - low, first - offset, last - first)
