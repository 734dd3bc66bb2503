"""From the bytes of a picture to the model's pixels: speed of a core, and distance from transformers' processor.

    python benchmarks/decode.py [--shards 'photos/*.tar'] [--images 100] [--write]

CPU milliseconds of one thread, the median of several passes over the same pictures; beside the ways of this project
the limit (a decoder that does nothing else) and the peers.  First the pixels are compared with those of transformers'
PIL image processor, on pictures of many sizes: a mean difference of 0.01 grey levels or one of more than 5 anywhere
ends the benchmark.  What the modes change in the bundled model's answers is counted on drawn pictures whose truth is
known.  Floor: `exact` is 2.3 times as fast as transformers' processor at photographs of 0.2 megapixels.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from measure import cpu_ms, machine, write_results
from pictures import draw_jpeg, draw_with_truth, read_shard
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from zsic.core.labels import load_labels
from zsic.core.preprocess import Geometry, prepare
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec
from zsic.demo.label_sets import labels
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder
from zsic.models.head_cache import find_head

SIDE = 224
GEOMETRY = Geometry(resize=SIDE, resample="bicubic", crop=(SIDE, SIDE))
MEAN_LIMIT, MAX_LIMIT, LEAST_OF_TRANSFORMERS = 0.01, 5, 2.3


def exact(data: bytes) -> np.ndarray:
    return prepare(data, GEOMETRY, DecodeSpec()).pixels_HW3


def pil(data: bytes) -> np.ndarray:
    return prepare(data, GEOMETRY, DecodeSpec(mode="pil")).pixels_HW3


def pillow_by_hand(data: bytes) -> np.ndarray:
    """What one would write: resize, crop, no check of anything."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    height, width = GEOMETRY.resized(image.height, image.width)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def fast(data: bytes) -> np.ndarray:
    return prepare(data, GEOMETRY, DecodeSpec(mode="fast")).pixels_HW3


def decode_alone(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "RGB")


class Transformers:
    """Its PIL processor; float32 and normalised at the end, as the model is given it."""

    def __init__(self) -> None:
        self._processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
        self._uint8 = CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=SIDE, do_rescale=False, do_normalize=False
        )

    def __call__(self, data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        pixels: np.ndarray = self._processor(images=[image], return_tensors="np")["pixel_values"]
        return pixels

    def pixels(self, data: bytes) -> np.ndarray:
        """Before it normalises."""
        image = Image.open(io.BytesIO(data))
        return np.asarray(self._uint8(images=[image], return_tensors="np")["pixel_values"])[0].transpose(1, 2, 0)


WAYS: dict[str, Callable[[bytes], np.ndarray]] = {
    "transformers' PIL processor": Transformers(),
    "Pillow by hand": pillow_by_hand,
    "zsic, mode pil": pil,
    "zsic, mode exact": exact,
    "zsic, mode fast": fast,
    "limit: simplejpeg decodes, nothing else": decode_alone,
}


def enlarge(data: bytes, short: int, seed: int) -> bytes:
    """The same picture with this short edge, with grain, as JPEG of quality 85."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(seed).normal(0, 4, (image.height, image.width, 3))
    stream = io.BytesIO()
    pixels = np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def distance(pictures: Sequence[bytes]) -> tuple[float, int]:
    """Mean and largest difference of `exact` from transformers' pixels, in grey levels."""
    theirs = Transformers()
    total, largest = 0.0, 0
    for data in pictures:
        difference = np.abs(exact(data).astype(np.int16) - theirs.pixels(data).astype(np.int16))
        total += float(difference.mean())
        largest = max(largest, int(difference.max()))
    return total / len(pictures), largest


def answers(n: int) -> str:
    """What the bundled model makes of the pixels of each mode; of JPEG pictures that `fast` scales."""
    checkpoint = resolve(ModelSpec())
    encoder = ImageEncoder(checkpoint)
    names = labels()
    head = find_head(load_labels(LabelsSpec(names=tuple(names))), checkpoint)
    pictures = [
        (label, data)
        for label, data in draw_with_truth(n)
        if min(Image.open(io.BytesIO(data)).size) >= 4 * encoder.geometry.size[0]
    ]
    given = {}
    for mode in ("pil", "exact", "fast"):
        spec = DecodeSpec(mode=mode)  # type: ignore[arg-type]
        pixels_NHW3 = np.stack([prepare(data, encoder.geometry, spec).pixels_HW3 for _, data in pictures])
        top = head.rank(
            torch.cat([encoder.encode(part) for part in np.array_split(pixels_NHW3, len(pictures) // 64)]), 1
        )
        given[mode] = [names[index] for index in top.label_index_BK[:, 0].tolist()]
    right = {
        mode: np.mean([label == got for (label, _), got in zip(pictures, given[mode], strict=True)]) for mode in given
    }
    same = {mode: np.mean([a == b for a, b in zip(given[mode], given["pil"], strict=True)]) for mode in given}
    return (
        "Answers of the bundled model (64 px) on "
        + f"{len(pictures)} drawn JPEG pictures of 256 to 480 px: "
        + "; ".join(f"`{mode}` right {right[mode]:.2%}, the same as `pil` {same[mode]:.2%}" for mode in given)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", help="tar shards of JPEG photographs, a glob; drawn ones without it")
    parser.add_argument("--images", type=int, default=100, help="small ones; a tenth as many large ones")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.shards:
        every = [data for path in sorted(Path().glob(options.shards)) for _, data in read_shard(path)]
        small = every[:: max(1, len(every) // options.images)][: options.images]
    else:
        rng = np.random.default_rng(0)
        every = small = [draw_jpeg(seed, *map(int, rng.integers(230, 640, 2))) for seed in range(options.images)]
    mean, largest = distance(every)
    if mean >= MEAN_LIMIT or largest > MAX_LIMIT:
        raise SystemExit(f"exact is {mean:.4f} grey levels from transformers in the mean and {largest} at most")

    few = small[:: max(1, len(small) // max(options.images // 10, 4))]
    sets = {
        "as they are": small,
        "short edge 1024": [enlarge(data, 1024, seed) for seed, data in enumerate(few)],
        "short edge 2000": [enlarge(data, 2000, seed) for seed, data in enumerate(few[: max(len(few) // 2, 2)])],
        "short edge 3000": [enlarge(data, 3000, seed) for seed, data in enumerate(few[: max(len(few) // 2, 2)])],
    }
    taken = {
        name: {way: cpu_ms(lambda: [call(data) for data in pictures], len(pictures)) for way, call in WAYS.items()}  # noqa: B023
        for name, pictures in sets.items()
    }
    megapixels = {
        name: np.mean([np.prod(Image.open(io.BytesIO(data)).size) for data in pictures]) / 1e6
        for name, pictures in sets.items()
    }
    lines = [
        "# From bytes to the model's pixels",
        "",
        f"`benchmarks/decode.py`, {options.shards or 'drawn pictures'}, JPEG to {SIDE} px; one thread; {machine()}.",
        f"`exact` differs from transformers' pixels by {mean:.4f} grey levels in the mean and {largest} at most "
        f"({len(every)} pictures).",
        "",
        "| CPU ms an image (images/s of a core) | "
        + " | ".join(f"{name}, {megapixels[name]:.2f} MP" for name in sets)
        + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    lines += [
        f"| {way} | " + " | ".join(f"{taken[name][way]:.2f} ({1e3 / taken[name][way]:.0f})" for name in sets) + " |"
        for way in WAYS
    ]
    text = "\n".join([*lines, "", answers(4000), ""])
    print(text)
    if options.write:
        print(write_results("decode", text))
    ratio = taken["as they are"]["transformers' PIL processor"] / taken["as they are"]["zsic, mode exact"]
    if ratio < LEAST_OF_TRANSFORMERS:
        raise SystemExit(f"exact is {ratio:.1f} times as fast as transformers, less than {LEAST_OF_TRANSFORMERS}")


if __name__ == "__main__":
    main()
