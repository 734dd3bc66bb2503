"""Scenes as pictures: the objects on their background, then what a cheap camera does to them.

All lengths follow the shorter side of the picture, so that a scene drawn large and shrunk by the image processor
looks like the same scene drawn small.  H, W = rows, columns; 3 = red, green, blue.
"""

import io
import math
from collections.abc import Mapping
from random import Random
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zsic.demo.backgrounds import Pixels_HW3, paint, shade
from zsic.demo.outlines import OUTLINES
from zsic.demo.scene import COLOURS, Scene

Rgb = tuple[float, float, float]

# Diameters as shares of the shorter side; the gaps keep neighbouring sizes apart.
_DIAMETERS: Final[Mapping[str, tuple[float, float]]] = {
    "small": (0.29, 0.35),
    "medium": (0.44, 0.51),
    "large": (0.66, 0.84),
}
_SMOOTHING: Final = 2  # objects are drawn this many times larger and averaged, for soft edges


def draw(scene: Scene, rng: Random, size_px: tuple[int, int]) -> Image.Image:
    """Draw `scene` as an RGB picture of `size_px` (width, height); the same `rng` state gives the same pixels.

    Every object lies, at least for the most part, within the central square: what centre-cropping keeps.
    """
    width_px, height_px = size_px
    picture = _to_image(paint(scene.background, rng, width_px, height_px))
    _scatter_clutter(picture, rng)
    colour = shade(rng, *_ranges(scene.colour))
    side_px = min(size_px)
    shadow = rng.random() < 0.5
    diameter, centres = _lay_out(scene, rng)
    turn_deg, spread_deg = rng.uniform(-20, 20), rng.uniform(0, 8)
    for x, y in centres:
        tile, mask = _object(
            scene,
            rng,
            colour,
            diameter_px=max(8, round(side_px * diameter * rng.uniform(0.96, 1.04))),
            turn_deg=turn_deg + rng.uniform(-spread_deg, spread_deg),
        )
        left = round((width_px - side_px) / 2 + x * side_px - tile.width / 2)
        top = round((height_px - side_px) / 2 + y * side_px - tile.height / 2)
        if shadow:
            offset_px = max(1, side_px // 50)
            dimmed = mask.point(lambda level: level * 2 // 5)
            picture.paste((20, 20, 25), (left + offset_px, top + offset_px), dimmed)
        picture.paste(tile, (left, top), mask)
    return _photograph(picture, rng)


def _ranges(colour: str) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    shades = COLOURS[colour]
    return shades.hue_deg, shades.saturation, shades.value


def _lay_out(scene: Scene, rng: Random) -> tuple[float, list[tuple[float, float]]]:
    """Choose a common diameter and centres that keep objects apart, as shares of the central square."""
    diameter = rng.uniform(*_DIAMETERS[scene.size])
    while True:
        margin = 0.46 * diameter
        for _ in range(30):
            centres: list[tuple[float, float]] = []
            for _ in range(scene.n_objects):
                centre = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
                if all(math.dist(centre, other) > 1.1 * diameter for other in centres):
                    centres.append(centre)
            if len(centres) == scene.n_objects:
                return diameter, centres
        diameter *= 0.97


def _object(
    scene: Scene, rng: Random, colour: Rgb, diameter_px: int, turn_deg: float
) -> tuple[Image.Image, Image.Image]:
    """One object as a square tile of its fill and the mask of its outline."""
    large_px = diameter_px * _SMOOTHING
    turn = math.radians(turn_deg)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    corners_P2 = (OUTLINES[scene.shape] @ rotation + 1) * (large_px / 2)
    mask = Image.new("L", (large_px, large_px))
    ImageDraw.Draw(mask).polygon(corners_P2.ravel().tolist(), fill=255)
    fill = _fill(scene.pattern, rng, colour, large_px)
    return fill.reduce(_SMOOTHING), mask.reduce(_SMOOTHING)


def _fill(pattern: str, rng: Random, colour: Rgb, side_px: int) -> Image.Image:
    fill = Image.new("RGB", (side_px, side_px), _rounded(colour))
    if pattern == "plain":
        return fill
    mark = _rounded(_contrasting(colour, rng))
    pen = ImageDraw.Draw(fill)
    period_px = side_px * rng.uniform(0.24, 0.32)
    phase_px = rng.uniform(0, period_px)
    marks = range(-1, round(side_px / period_px) + 2)
    if pattern == "striped":
        slant_px = rng.uniform(-0.5, 0.5) * side_px
        flipped = rng.random() < 0.5
        for step in range(-4, len(marks) + 4):
            start = phase_px + step * period_px
            stop = start + 0.42 * period_px
            stripe = [(start, 0), (stop, 0), (stop + slant_px, side_px), (start + slant_px, side_px)]
            pen.polygon([(y, x) if flipped else (x, y) for x, y in stripe], fill=mark)
    elif pattern == "dotted":
        radius_px = 0.29 * period_px
        for row in marks:
            for column in marks:
                x = phase_px + (column + row % 2 / 2) * period_px
                y = phase_px + row * period_px
                pen.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=mark)
    else:
        cell_px = 0.62 * period_px
        for row in range(-1, round(side_px / cell_px) + 2):
            for column in range(-2 + row % 2, round(side_px / cell_px) + 2, 2):
                x, y = phase_px + column * cell_px, phase_px + row * cell_px
                pen.rectangle((x, y, x + cell_px, y + cell_px), fill=mark)
    return fill


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


def _rounded(colour: Rgb) -> tuple[int, int, int]:
    red, green, blue = (round(level) for level in colour)
    return red, green, blue


def _to_image(pixels_HW3: Pixels_HW3) -> Image.Image:
    return Image.fromarray(pixels_HW3.clip(0, 255, out=pixels_HW3).astype(np.uint8))


def _scatter_clutter(picture: Image.Image, rng: Random) -> None:
    """Litter the background with twigs and crumbs, too thin or small to be one of the objects."""
    pen = ImageDraw.Draw(picture)
    side_px = min(picture.size)
    for _ in range(rng.choice((0, 0, 1, 2, 4, 6))):
        colour = _rounded(shade(rng, (0, 360), (0.0, 0.7), (0.15, 0.95)))
        x, y = rng.uniform(0, picture.width), rng.uniform(0, picture.height)
        if rng.random() < 0.5:
            angle, length_px = rng.uniform(0, math.tau), side_px * rng.uniform(0.1, 0.5)
            end = x + length_px * math.cos(angle), y + length_px * math.sin(angle)
            pen.line((x, y, *end), fill=colour, width=max(1, side_px // 70))
        else:
            radius_px = side_px * rng.uniform(0.01, 0.025)
            pen.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=colour)


def _photograph(picture: Image.Image, rng: Random) -> Image.Image:
    """Add uneven light, a colour cast, blur, sensor noise and the traces of an earlier JPEG compression."""
    side_px = min(picture.size)
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(side_px * rng.uniform(0.001, 0.010)))
    pixels_HW3 = np.array(picture, dtype=np.float32)
    height_px, width_px = pixels_HW3.shape[:2]
    across, down = rng.uniform(-0.09, 0.09), rng.uniform(-0.09, 0.09)
    light_HW = (
        rng.uniform(0.90, 1.04)
        + np.linspace(-across, across, width_px, dtype=np.float32)[None, :]
        + np.linspace(-down, down, height_px, dtype=np.float32)[:, None]
    )
    cast = np.array([rng.uniform(0.97, 1.03) for _ in range(3)], dtype=np.float32)
    pixels_HW3 *= light_HW[..., None] * cast
    if rng.random() < 0.7:
        noise = np.random.default_rng(rng.getrandbits(64))
        noise_HW = noise.standard_normal((height_px, width_px), dtype=np.float32)
        pixels_HW3 += (rng.uniform(2, 11) * noise_HW)[..., None]
    picture = _to_image(pixels_HW3)
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=rng.randint(30, 85))
        picture = Image.open(buffer)
        picture.load()
    return picture
