"""How each background is painted, up to light, blur and noise.

H, W = rows, columns of the picture; 3 = red, green, blue, as float32 from 0 to 255.
"""

import colorsys
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grain_HW = NDArray[np.float32]
Pixels_HW3 = NDArray[np.float32]


def paint(background: str, rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    """Paint `background`, one of `scene.BACKGROUNDS`."""
    return _PAINTERS[background](rng, width_px, height_px)


def shade(
    rng: Random,
    hue_deg: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> tuple[float, float, float]:
    """Pick a colour from ranges of hue, saturation and value, as red, green, blue from 0 to 255."""
    hue = rng.uniform(*hue_deg) % 360 / 360
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    return 255 * red, 255 * green, 255 * blue


def _grain(rng: Random, width_px: int, height_px: int, n_across: int, n_down: int) -> Grain_HW:
    """Smooth random hills from 0 to 1, about `n_across` by `n_down` of them."""
    coarse = Image.frombytes("L", (n_across, n_down), rng.randbytes(n_across * n_down))
    smooth = coarse.resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / np.float32(255)


def _blend(first: tuple[float, ...], second: tuple[float, ...], share_HW: Grain_HW) -> Pixels_HW3:
    start, end = np.array([first, second], dtype=np.float32)
    blended_HW3: Pixels_HW3 = start + share_HW[..., None] * (end - start)
    return blended_HW3


def _grass(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    light = shade(rng, (85, 115), (0.45, 0.7), (0.5, 0.68))
    dark = shade(rng, (95, 125), (0.5, 0.8), (0.22, 0.36))
    return _blend(dark, light, _grain(rng, width_px, height_px, width_px // 3, height_px // 8))


def _sky(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    blue = shade(rng, (202, 214), (0.32, 0.5), (0.85, 1.0))
    cloud = np.clip(2.2 * _grain(rng, width_px, height_px, 6, 5) - 1.0, 0, 1)
    haze = np.linspace(0, rng.uniform(0.1, 0.4), height_px, dtype=np.float32)[:, None]
    return _blend(blue, (245, 247, 250), np.maximum(cloud, haze))


def _sand(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    light = shade(rng, (36, 44), (0.2, 0.35), (0.82, 0.92))
    dark = shade(rng, (32, 40), (0.3, 0.42), (0.66, 0.76))
    fine = _grain(rng, width_px, height_px, width_px // 2, height_px // 2)
    return _blend(dark, light, 0.5 * fine + 0.5 * _grain(rng, width_px, height_px, 3, 14))


def _bricks(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    brick_px = max(6, round(min(width_px, height_px) * rng.uniform(0.1, 0.15)))
    joint_px = max(1, brick_px // 7)
    row_H = np.arange(height_px) // brick_px
    x_HW = np.arange(width_px)[None, :] + (row_H % 2 * brick_px)[:, None]
    joint_HW = (np.arange(height_px) % brick_px < joint_px)[:, None] | (x_HW % (2 * brick_px) < joint_px)
    clay = _blend(
        shade(rng, (8, 16), (0.45, 0.6), (0.42, 0.52)),
        shade(rng, (8, 18), (0.45, 0.6), (0.55, 0.68)),
        _grain(rng, width_px, height_px, 8, 12),
    )
    clay[joint_HW] = shade(rng, (30, 40), (0.05, 0.12), (0.68, 0.78))
    return clay


def _wood(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    light = shade(rng, (27, 34), (0.42, 0.55), (0.62, 0.75))
    dark = shade(rng, (24, 30), (0.5, 0.62), (0.42, 0.52))
    wood = _blend(dark, light, _grain(rng, width_px, height_px, 3, max(8, height_px // 4)))
    plank_px = max(10, round(height_px * rng.uniform(0.18, 0.3)))
    wood[np.arange(height_px) % plank_px < max(1, plank_px // 16)] *= 0.5
    return wood


def _snow(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    shadow = shade(rng, (205, 225), (0.08, 0.16), (0.82, 0.88))
    return _blend(shadow, (250, 251, 253), np.clip(1.5 * _grain(rng, width_px, height_px, 5, 5), 0, 1))


def _night(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    dark = shade(rng, (225, 250), (0.5, 0.8), (0.10, 0.18))
    darker = shade(rng, (225, 250), (0.5, 0.8), (0.04, 0.08))
    night = _blend(darker, dark, _grain(rng, width_px, height_px, 3, 3))
    light_px = max(1, min(width_px, height_px) // 90)
    for _ in range(rng.randint(15, 40)):
        x, y = rng.randrange(width_px), rng.randrange(height_px)
        night[y : y + light_px, x : x + light_px] = rng.uniform(120, 230)
    return night


def _paper(rng: Random, width_px: int, height_px: int) -> Pixels_HW3:
    sheet = shade(rng, (40, 55), (0.05, 0.14), (0.92, 0.98))
    paper = _blend(sheet, tuple(0.94 * level for level in sheet), _grain(rng, width_px, height_px, 4, 4))
    line_px = max(6, round(min(width_px, height_px) * rng.uniform(0.09, 0.13)))
    paper[np.arange(height_px) % line_px < max(1, line_px // 9)] = shade(rng, (205, 225), (0.25, 0.4), (0.68, 0.8))
    return paper


_PAINTERS: Final[Mapping[str, Callable[[Random, int, int], Pixels_HW3]]] = MappingProxyType(
    {
        "grass": _grass,
        "sky": _sky,
        "sand": _sand,
        "bricks": _bricks,
        "wood": _wood,
        "snow": _snow,
        "night": _night,
        "paper": _paper,
    }
)
