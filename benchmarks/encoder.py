"""The encoder on a CPU: torch in float32 beside int8 in ONNX Runtime, and what int8 costs in answers.

    python benchmarks/encoder.py [--towers B/32,B/16] [--threads 2] [--write]

Images a second, the better of several passes over the same batch of pixels in memory, each way and each number of
threads in a process of its own; batches of 8.  Weights are random, for rates; answers are those of the bundled model
on drawn pictures whose truth is known.  Before a rate is printed, both ways' vectors are compared.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, python, spend, write_results
from pictures import draw_with_truth
from towers import TOWERS, make_checkpoint

from zsic.core.cache import cache_folder
from zsic.core.labels import load_labels
from zsic.core.preprocess import prepare
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec
from zsic.demo.label_sets import labels
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder
from zsic.models.head_cache import find_head

WAYS = ("float32", "int8")
BATCH = 8
LEAST_COSINE = 0.99
LEAST_OF_FLOAT32 = 1.3  # int8, on any CPU; without VNNI about 2, with it 5
SECONDS = 20.0


def rate(folder: str, way: str, threads: int) -> dict[str, object]:
    """Images/s, and the vectors of some pixels."""
    encoder = ImageEncoder(resolve(ModelSpec(name=folder)), dtype=way, threads=threads)
    pixels_BHW3 = np.random.default_rng(0).integers(0, 256, (BATCH, *encoder.geometry.size, 3), np.uint8)
    image_BD = encoder.encode(pixels_BHW3)
    taken = []
    began = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        encoder.encode(pixels_BHW3)
        taken.append(time.perf_counter() - started)
    return {"rate": BATCH / min(taken), "image_BD": image_BD.tolist()}


def make_int8(folder: str) -> dict[str, object]:
    """Seconds to make the int8 tower, which a machine does once."""
    checkpoint = resolve(ModelSpec(name=folder))
    started = time.perf_counter()
    ImageEncoder(checkpoint, dtype="int8")
    seconds = time.perf_counter() - started
    (kept,) = (cache_folder() / "int8").glob(f"{checkpoint.digest}-*.onnx")
    return {"seconds": seconds, "bytes": kept.stat().st_size}


def answers(n: int) -> str:
    """How often each way is right, and how often int8 says what float32 says, by batch size."""
    checkpoint = resolve(ModelSpec())
    names = labels()
    head = find_head(load_labels(LabelsSpec(names=tuple(names))), checkpoint)
    pictures = draw_with_truth(n)
    encoders = {way: ImageEncoder(checkpoint, dtype=way) for way in WAYS}
    geometry = encoders["int8"].geometry
    pixels_NHW3 = np.stack([prepare(data, geometry, DecodeSpec()).pixels_HW3 for _, data in pictures])
    truth_N = np.array([names.index(label) for label, _ in pictures])

    def best(way: str, batch: int) -> np.ndarray:
        parts = [encoders[way].encode(pixels_NHW3[at : at + batch]) for at in range(0, len(pixels_NHW3), batch)]
        return head.rank(torch.cat(parts), 1).label_index_BK[:, 0].numpy()

    float_N = best("float32", 64)
    told = [f"float32 right {np.mean(float_N == truth_N):.1%}"]
    for batch in (8, 64):
        int8_N = best("int8", batch)
        told.append(
            f"int8 in batches of {batch} right {np.mean(int8_N == truth_N):.1%}, the same as float32 "
            f"{np.mean(int8_N == float_N):.1%}"
        )
    return f"Answers of the bundled model on {len(pictures):,} drawn pictures: " + "; ".join(told) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", default="B/32,B/16", help=", ".join(TOWERS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="beside 1")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.part:
        case ["make", folder]:
            print(json.dumps(make_int8(folder)))
            return
        case [way, folder, threads]:
            print(json.dumps(rate(folder, way, int(threads))))
            return
    with tempfile.TemporaryDirectory(prefix="encoder-bench-") as work:
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        text = measure(options.towers.split(","), sorted({1, options.threads}), Path(work))
        print(text)
        if options.write:
            print(write_results("encoder", text))


def measure(towers: list[str], threads: list[int], work: Path) -> str:
    columns = [f"{way}, {n} thread{'s' * (n > 1)}" for n in threads for way in WAYS]
    lines = [
        "# The encoder on a CPU",
        "",
        f"`benchmarks/encoder.py`, random weights, batches of {BATCH}; {machine()}.",
        "",
        "| images/s (GFLOP/s) | " + " | ".join(columns) + " | int8 is made in | with | and kept in |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for name in towers:
        folder = make_checkpoint(TOWERS[name], work / name.replace("/", "-"), "cpu")
        made = spend(python(__file__, "--part", "make", folder))
        cells = []
        for n in threads:
            both = [spend(python(__file__, "--part", way, folder, n)).result for way in WAYS]
            ours_BD, theirs_BD = (torch.tensor(each["image_BD"]) for each in both)
            cosine = float((ours_BD * theirs_BD).sum(dim=1).min())
            if cosine < LEAST_COSINE:
                raise SystemExit(f"{name}: a vector of int8 has a cosine of {cosine:.3f} with float32's")
            if (ratio := both[1]["rate"] / both[0]["rate"]) < LEAST_OF_FLOAT32:
                raise SystemExit(f"{name}: int8 is {ratio:.1f} times as fast as float32, less than {LEAST_OF_FLOAT32}")
            cells += [f"{each['rate']:.1f} ({each['rate'] * TOWERS[name].flops / 1e9:.0f})" for each in both]
            print(f"{name}, {n} threads: {cells[-2:]}, cosine {cosine:.4f}", file=sys.stderr)
        cells += [
            f"{made.result['seconds']:.0f} s",
            f"{made.peak_bytes / 2**30:.1f} GiB",
            f"{made.result['bytes'] / 2**20:.0f} MiB",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", answers(3000), ""])


if __name__ == "__main__":
    main()
