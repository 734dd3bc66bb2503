"""The pictures that benchmarks work on: JPEG in tar shards or as files; real photographs where there are some."""

import csv
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def read_shard(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each JPEG picture of a shard."""
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.lower().endswith((".jpg", ".jpeg")):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()


def draw_jpeg(seed: int, width: int = 500, height: int = 375) -> bytes:
    """Blurred noise with grain: about 110 KB at 500 x 375, as photographs of that size have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((width, height), 3)
    grain = np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 14, (height, width, 3)), 0, 255)
    stream = io.BytesIO()
    Image.fromarray(grain.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def draw_shard(path: Path, n: int = 100) -> Path:
    """Write a shard of drawn pictures."""
    with tarfile.open(path, "w") as tar:
        for number in range(n):
            data = draw_jpeg(number)
            entry = tarfile.TarInfo(f"{number:05}.jpg")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def link_shards(shards: list[Path], folder: Path, n_images: int) -> Path:
    """As many shards as hold so many images, each a link to one of the few that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [sum(1 for _ in read_shard(shard)) for shard in shards]
    n = at = 0
    while n < n_images:
        os.link(shards[at % len(shards)], folder / f"{at:05}.tar")
        n += sizes[at % len(shards)]
        at += 1
    return folder


def link_files(shards: list[Path], folder: Path, n_images: int) -> Path:
    """So many loose files, each a link to one of the few that the shards hold."""
    folder.mkdir(parents=True, exist_ok=True)
    few = folder.parent / f"{folder.name}-few"
    few.mkdir()
    originals = []
    for shard in shards:
        for name, data in read_shard(shard):
            path = few / f"{shard.stem}-{Path(name).name}"
            path.write_bytes(data)
            originals.append(path)
    for at in range(n_images):
        os.link(originals[at % len(originals)], folder / f"{at:07}.jpg")
    return folder


def draw_with_truth(n: int) -> list[tuple[str, bytes]]:
    """Labels and pictures as the demo draws them, which the bundled model can tell apart; no damaged ones."""
    from zsic.demo.shards import write_shards

    with tempfile.TemporaryDirectory() as folder:
        truth = csv.DictReader(write_shards(Path(folder), n, seed=7, images_per_shard=n).open())
        label_of = {row["key"]: row["label"] for row in truth}
        return [(label_of[name], data) for name, data in read_shard(Path(folder, "demo-00000.tar")) if name in label_of]
