"""A picture with a heat map over it, and a legend that says what it shows.

The picture is grey and the heat alone has colour, so that neither is taken for the other.  Shape legend: H W patches
(of heat) or pixels (of pictures).
"""

from bisect import bisect_right

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]

MAX_SIDE = 1024
"""Pixels of the longer side; larger pictures are shrunk."""
MIN_SIDE = 384
"""Pixels of the shorter side; smaller pictures are enlarged, for the legend to be read."""

# From cold to hot, of growing lightness (after matplotlib's inferno), so that it reads without colour, too.
_COLOURS = np.array(((20, 11, 53), (101, 21, 110), (187, 55, 84), (249, 142, 9), (252, 255, 164)), np.float32)
_FADED = 0.3  # what is left of the contrast of the picture where it is hottest
_LEGEND_WIDTH = 300
_UNSEEN = 0.35  # of the light of what the model did not see


def draw_heat_map(picture: Image.Image, heat_HW: npt.NDArray[np.float32], seen: Box, title: str) -> Image.Image:
    """Lay heat of 0 to 1 over the part (left, top, right, bottom) of a picture; what lies outside is darkened."""
    scale = min(MAX_SIDE / max(picture.size), max(1.0, MIN_SIDE / min(picture.size)))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    grey = picture.convert("L").resize((width, height), Image.Resampling.BICUBIC)
    left, top, right, bottom = (round(edge * scale) for edge in seen)
    part = Image.fromarray(heat_HW.astype(np.float32), "F").resize(
        (max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC
    )
    whole = Image.new("F", (width, height))
    whole.paste(part, (left, top))
    heat_hw = np.asarray(whole)
    is_seen_hw1 = _inside((height, width), (left, top, right, bottom))[..., None]
    weight_hw1 = heat_hw.clip(0, 1)[..., None]
    grey_hw1 = np.asarray(grey, np.float32)[..., None]
    warm_hw3 = _colour(weight_hw1[..., 0]) * (1 - _FADED + _FADED * grey_hw1 / 255)
    mixed_hw3 = (1 - 0.8 * weight_hw1) * grey_hw1 + 0.8 * weight_hw1 * warm_hw3
    shown_hw3 = np.where(is_seen_hw1, mixed_hw3, _UNSEEN * grey_hw1)
    drawn = Image.fromarray(shown_hw3.clip(0, 255).astype(np.uint8))
    return _add_legend(drawn, title)


def _inside(size: tuple[int, int], box: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = box
    inside_hw = np.zeros(size, bool)
    inside_hw[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return inside_hw


def _colour(heat_hw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    at_hw = heat_hw * (len(_COLOURS) - 1)
    low_hw = np.minimum(at_hw.astype(int), len(_COLOURS) - 2)
    share_hw1 = (at_hw - low_hw)[..., None]
    mixed: npt.NDArray[np.float32] = (1 - share_hw1) * _COLOURS[low_hw] + share_hw1 * _COLOURS[low_hw + 1]
    return mixed


def _add_legend(picture: Image.Image, title: str) -> Image.Image:
    """Add a strip below: the title, and the scale of colours with its words."""
    size = max(13, picture.width // 40)
    strip, width = round(3.6 * size), max(picture.width, _LEGEND_WIDTH)
    whole = Image.new("RGB", (width, picture.height + strip), "white")
    whole.paste(picture)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size)
    margin, top = size // 2, picture.height + size // 2
    pen.text((margin, top), _shorten(title, font, width - 2 * margin), "black", font)
    top += round(1.6 * size)
    words = "speaks less for it", "more"
    left = margin + round(font.getlength(words[0])) + size // 2
    right = width - margin - round(font.getlength(words[1])) - size // 2
    pen.text((margin, top), words[0], "black", font)
    pen.text((right + size // 2, top), words[1], "black", font)
    bar_hw = np.linspace(0, 1, right - left, dtype=np.float32)[None].repeat(size, 0)
    whole.paste(Image.fromarray(_colour(bar_hw).astype(np.uint8)), (left, top + 1))
    return whole


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    n_too_many = bisect_right(range(len(text)), float(width), key=lambda n: font.getlength(f"{text[:n]} ..."))
    return f"{text[: max(n_too_many - 1, 0)]} ..."
