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
from zsic.demo.patterns import Rgb, fill, rounded
from zsic.demo.scene import COLOURS, Scene

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
    return draw_with_mask(scene, rng, size_px)[0]


def draw_with_mask(scene: Scene, rng: Random, size_px: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Draw the same picture, and another that is white where its objects are, and black elsewhere."""
    width_px, height_px = size_px
    picture = _to_image(paint(scene.background, rng, width_px, height_px))
    _scatter_clutter(picture, rng)
    colour = shade(rng, *_ranges(scene.colour))
    side_px = min(size_px)
    where = Image.new("L", picture.size)
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
        where.paste(255, (left, top), mask)
    return _photograph(picture, rng), where


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
    filled = fill(scene.pattern, rng, colour, large_px)
    return filled.reduce(_SMOOTHING), mask.reduce(_SMOOTHING)


def _to_image(pixels_HW3: Pixels_HW3) -> Image.Image:
    return Image.fromarray(pixels_HW3.clip(0, 255, out=pixels_HW3).astype(np.uint8))


def _scatter_clutter(picture: Image.Image, rng: Random) -> None:
    """Litter the background with twigs and crumbs, too thin or small to be one of the objects."""
    pen = ImageDraw.Draw(picture)
    side_px = min(picture.size)
    for _ in range(rng.choice((0, 0, 1, 2, 4, 6))):
        colour = rounded(shade(rng, (0, 360), (0.0, 0.7), (0.15, 0.95)))
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
