"""Sample data: fresh pictures in WebDataset shards, with what they show in a truth table beside them.

The pictures come in the sizes, formats and oddities of a real collection: JPEG, PNG and WebP, upright and tall, with
an alpha channel or turned by EXIF.  The same seed gives the same bytes, for any number of images per shard.
"""

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image

from zsic.core.errors import SpecError
from zsic.demo.breakage import broken_members
from zsic.demo.drawing import draw
from zsic.demo.label_sets import true_label
from zsic.demo.scene import ATTRIBUTES, Scene, sample

TRUTH_NAME: Final = "truth.csv"
TRUTH_COLUMNS: Final = ("uri", "key", "label", *ATTRIBUTES, "held_out", "tags")
TAGS: Final = ("colour", "shape", "pattern")
"""Attributes of which `tags` has the values: several labels an image."""

_HELD_OUT_SHARE: Final = 0.25
_PROCESSES: Final = 2
_UPRIGHT, _TURNED_LEFT, _TURNED_RIGHT = 1, 8, 6  # values of the EXIF orientation tag
_ORIENTATION_TAG: Final = 0x0112


@dataclass(frozen=True)
class _Order:
    """One shard to write: its path, the numbers of its images, and extra members that are no images."""

    path: Path
    numbers: range
    seed: int
    broken: tuple[tuple[str, bytes], ...]


def write_shards(folder: Path, n_images: int, seed: int, images_per_shard: int = 500, n_broken: int = 0) -> Path:
    """Draw `n_images` pictures into `folder/demo-00000.tar` and so on; return the path of the truth table.

    A quarter of them show held-out pairs.  Each picture has a `.json` member with its attributes.  `n_broken` further
    members, not in the truth table, carry an image's name and are empty, cut short, HTML, and the like.
    Shards and truth of an earlier call in `folder` are replaced; the truth table appears when all shards are whole.
    Several shards are drawn by several processes, so a script needs its `if __name__ == "__main__"`.  Raises
    `SpecError` for numbers that make no shard.
    """
    if n_images < 1 or images_per_shard < 1 or n_broken < 0:
        raise SpecError(
            f"the demo cannot be {n_images} images in shards of {images_per_shard} with {n_broken} broken ones; "
            "use at least 1, 1 and 0"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("demo-*.tar"), *folder.glob(TRUTH_NAME)]:
        old.unlink()
    starts = range(0, n_images, images_per_shard)
    broken = broken_members(n_broken, Random(f"broken {seed}"))
    orders = [
        _Order(
            path=Path(os.path.abspath(folder)) / f"demo-{index:05d}.tar",
            numbers=range(start, min(start + images_per_shard, n_images)),
            seed=seed,
            broken=tuple(broken[index :: len(starts)]),
        )
        for index, start in enumerate(starts)
    ]
    unfinished = folder / f"{TRUTH_NAME}.part"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        truth = csv.DictWriter(file, TRUTH_COLUMNS, lineterminator="\n")
        truth.writeheader()
        for rows in _write_all(orders):
            truth.writerows(rows)
    return unfinished.rename(folder / TRUTH_NAME)


def _write_all(orders: list[_Order]) -> Iterator[list[dict[str, str]]]:
    """Write the shards, several at a time where there are several; yield their truths in order."""
    if len(orders) == 1:
        yield _write_shard(orders[0])
        return
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_shard, orders)


def _write_shard(order: _Order) -> list[dict[str, str]]:
    rows = []
    places = Random(f"places {order.seed} {order.path.name}").choices(order.numbers, k=len(order.broken))
    with tarfile.open(order.path, "w") as shard:
        for number in order.numbers:
            scene, suffix, content = _picture(Random(f"shards {order.seed} {number}"))
            key = f"{number:06d}.{suffix}"
            attributes = {**scene.attributes(), "held_out": str(scene.held_out).lower()}
            _add(shard, key, content)
            _add(shard, f"{number:06d}.json", json.dumps(attributes).encode())
            tags = ";".join(attributes[name] for name in TAGS)
            rows.append({"uri": str(order.path), "key": key, "label": true_label(scene), **attributes, "tags": tags})
            for place, (name, content) in zip(places, order.broken, strict=True):
                if place == number:
                    _add(shard, name, content)
    return rows


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def _picture(rng: Random) -> tuple[Scene, str, bytes]:
    """Draw and encode one picture; return what it shows, the suffix of its format, and its bytes."""
    scene = sample(rng, held_out=rng.random() < _HELD_OUT_SHARE)
    short_px = rng.randint(160, 340)
    long_px = min(480, round(short_px * rng.uniform(1.0, 1.5)))
    size_px = (long_px, short_px) if rng.random() < 0.65 else (short_px, long_px)
    picture = draw(scene, rng, size_px)
    buffer = io.BytesIO()
    suffix = rng.choices(("jpg", "png", "webp"), (75, 12, 13))[0]
    if suffix == "png":
        (picture.convert("RGBA") if rng.random() < 0.5 else picture).save(buffer, "PNG", compress_level=3)
    elif suffix == "webp":
        picture.save(buffer, "WEBP", quality=rng.randint(60, 90), method=2)
    else:
        orientation = rng.choices((_UPRIGHT, _TURNED_LEFT, _TURNED_RIGHT), (90, 5, 5))[0]
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        if orientation == _TURNED_RIGHT:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        elif orientation == _TURNED_LEFT:
            picture = picture.transpose(Image.Transpose.ROTATE_270)
        picture.save(buffer, "JPEG", quality=rng.randint(60, 95), progressive=rng.random() < 0.2, exif=exif)
    return scene, suffix, buffer.getvalue()
