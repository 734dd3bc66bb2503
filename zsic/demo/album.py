"""Training pictures drawn ahead of time, as the image processor would hand them to the model, on disk.

N = pictures, H, W = rows, columns, 3 = red, green, blue (uint8); A = attributes.
"""

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsic.demo.drawing import draw
from zsic.demo.posing import Values_BA, values
from zsic.demo.scene import Scene, sample

logger = logging.getLogger(__name__)

IMAGE_SIDE_PX: Final = 64
_PAGE: Final = 500

Pixels_NHW3 = NDArray[np.uint8]


def load_album(folder: Path, n_pictures: int, seed: int) -> tuple[Pixels_NHW3, Values_BA]:
    """Draw `n_pictures` into `folder`, or open them if they are there; none shows a held-out pair."""
    pixels_path, values_path = folder / f"pixels-{n_pictures}-{seed}.npy", folder / f"values-{n_pictures}-{seed}.npy"
    if not values_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (n_pictures, IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3)
        pixels = np.lib.format.open_memmap(pixels_path, mode="w+", dtype=np.uint8, shape=shape)
        scenes: list[Scene] = []
        for page_scenes, page_pixels in _pages(n_pictures, seed):
            pixels[len(scenes) : len(scenes) + len(page_scenes)] = page_pixels
            scenes += page_scenes
            if len(scenes) % (20 * _PAGE) == 0:
                logger.info("%d of %d pictures drawn", len(scenes), n_pictures)
        pixels.flush()
        np.save(values_path, values(scenes))
    return np.load(pixels_path, mmap_mode="r"), np.load(values_path)


def draw_scaled(scene: Scene, rng: Random) -> Image.Image:
    """Draw a scene at a random size and shape of picture, then shrink and crop it as CLIP's processor does."""
    side_px = round(math.exp(rng.uniform(math.log(72), math.log(240))))
    stretch = rng.choice((1.0, rng.uniform(1.0, 1.5)))
    long_px = round(side_px * stretch)
    size_px = (long_px, side_px) if rng.random() < 0.6 else (side_px, long_px)
    return shrink(draw(scene, rng, size_px))


def shrink(picture: Image.Image) -> Image.Image:
    """Resize the shorter side to `IMAGE_SIDE_PX` (bicubic) and crop the centre."""
    scale = IMAGE_SIDE_PX / min(picture.size)
    width_px, height_px = (int(scale * side_px) for side_px in picture.size)
    width_px, height_px = max(width_px, IMAGE_SIDE_PX), max(height_px, IMAGE_SIDE_PX)
    resized = picture.resize((width_px, height_px), Image.Resampling.BICUBIC)
    left, top = (width_px - IMAGE_SIDE_PX) // 2, (height_px - IMAGE_SIDE_PX) // 2
    return resized.crop((left, top, left + IMAGE_SIDE_PX, top + IMAGE_SIDE_PX))


def _pages(n_pictures: int, seed: int) -> Iterator[tuple[list[Scene], Pixels_NHW3]]:
    starts = range(0, n_pictures, _PAGE)
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("forkserver")) as pool:
        yield from pool.map(_page, starts, [min(_PAGE, n_pictures - start) for start in starts], [seed] * len(starts))


def _page(start: int, n_pictures: int, seed: int) -> tuple[list[Scene], Pixels_NHW3]:
    rng = Random(f"album {seed} {start}")
    scenes = [sample(rng) for _ in range(n_pictures)]
    return scenes, np.stack([np.asarray(draw_scaled(scene, rng)) for scene in scenes])
