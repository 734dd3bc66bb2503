"""How an object is filled: one colour, or marks of a second one over it.

All patterns leave at least half of the object in its own colour.
"""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from PIL import Image, ImageDraw

Rgb = tuple[float, float, float]
_Mark = tuple[int, int, int]


def fill(pattern: str, rng: Random, colour: Rgb, side_px: int) -> Image.Image:
    """Fill a square with `pattern`, one of `scene.PATTERNS`."""
    square = Image.new("RGB", (side_px, side_px), rounded(colour))
    if pattern == "plain":
        return square
    mark = rounded(_contrasting(colour, rng))
    period_px = side_px * rng.uniform(0.24, 0.32)
    phase_px = rng.uniform(0, period_px)
    _PAINTERS[pattern](ImageDraw.Draw(square), rng, mark, side_px, period_px, phase_px)
    return square


def rounded(colour: Rgb) -> tuple[int, int, int]:
    """Round to what a picture can hold."""
    red, green, blue = (round(level) for level in colour)
    return red, green, blue


def _contrasting(colour: Rgb, rng: Random) -> Rgb:
    """The second colour of a pattern: the first one much lighter, or darker if it is light itself."""
    brightness = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    if brightness > 150:
        target, share = 0.0, rng.uniform(0.38, 0.50)
    elif brightness < 40:  # black stays the darkest of black, grey and white, whatever the pattern
        target, share = 255.0, rng.uniform(0.36, 0.46)
    else:
        target, share = 255.0, rng.uniform(0.55, 0.72)
    red, green, blue = (level + share * (target - level) for level in colour)
    return red, green, blue


def _stripe(
    pen: ImageDraw.ImageDraw, rng: Random, mark: _Mark, side_px: int, period_px: float, phase_px: float
) -> None:
    slant_px = rng.uniform(-0.5, 0.5) * side_px
    lying = rng.random() < 0.5
    for step in range(-4, round(side_px / period_px) + 7):
        start = phase_px + step * period_px
        stop = start + 0.42 * period_px
        corners = [(start, 0), (stop, 0), (stop + slant_px, side_px), (start + slant_px, side_px)]
        pen.polygon([(y, x) if lying else (x, y) for x, y in corners], fill=mark)


def _dot(pen: ImageDraw.ImageDraw, _rng: Random, mark: _Mark, side_px: int, period_px: float, phase_px: float) -> None:
    radius_px = 0.29 * period_px
    steps = range(-1, round(side_px / period_px) + 2)
    for row in steps:
        for column in steps:
            x = phase_px + (column + row % 2 / 2) * period_px
            y = phase_px + row * period_px
            pen.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=mark)


def _check(
    pen: ImageDraw.ImageDraw, _rng: Random, mark: _Mark, side_px: int, period_px: float, phase_px: float
) -> None:
    cell_px = 0.62 * period_px
    n_cells = round(side_px / cell_px) + 2
    for row in range(-1, n_cells):
        for column in range(-2 + row % 2, n_cells, 2):
            x, y = phase_px + column * cell_px, phase_px + row * cell_px
            pen.rectangle((x, y, x + cell_px, y + cell_px), fill=mark)


_Painter = Callable[[ImageDraw.ImageDraw, Random, _Mark, int, float, float], None]
_PAINTERS: Final[Mapping[str, _Painter]] = MappingProxyType({"striped": _stripe, "dotted": _dot, "checked": _check})
