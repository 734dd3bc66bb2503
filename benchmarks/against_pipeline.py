"""The job beside transformers' pipeline, on the same pictures, model, labels and machine, in one run.

    python benchmarks/against_pipeline.py [--images 3000]

The pipeline gets what favours it: pictures in memory, batches of 32, every core for torch.  It is timed on a sample;
the job on all pictures, from tar shards to Parquet, while images flow (starting Ray is told apart).  Answers are
compared before a rate is printed.
"""

import argparse
import io
import platform
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image

import zsic
from zsic.core.spec import make_spec
from zsic.demo import MODEL_PATH
from zsic.demo.label_sets import labels
from zsic.demo.shards import write_shards

BATCH_SIZE = 32
N_SAMPLED = 320


def read_images(folder: Path, n: int) -> Iterator[tuple[str, bytes]]:
    """The first pictures of the shards."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith(".json") and n > 0:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
                    n -= 1


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    options = parser.parse_args()
    names = labels()
    with tempfile.TemporaryDirectory() as scratch:
        shards, out = Path(scratch, "shards"), Path(scratch, "out")
        write_shards(shards, options.images, seed=1)
        sample = list(read_images(shards, N_SAMPLED))

        spec = make_spec({"source": f"{shards}/*.tar", "labels": names, "output": str(out), "decode": {"mode": "pil"}})
        summary = zsic.run(spec)
        fast = make_spec({**spec.model_dump(), "decode": {"mode": "exact"}, "output": f"{out}-fast"})
        summary_fast = zsic.run(fast)
        rows = pq.read_table(sorted(out.glob("*.parquet")), columns=["key", "label"]).to_pylist()

    pipeline = transformers.pipeline("zero-shot-image-classification", model=str(MODEL_PATH), device="cpu")
    pipeline([Image.open(io.BytesIO(data)) for _, data in sample[:BATCH_SIZE]], candidate_labels=names)
    started = time.perf_counter()
    answers = pipeline(
        [Image.open(io.BytesIO(data)) for _, data in sample], candidate_labels=names, batch_size=BATCH_SIZE
    )
    peer = len(sample) / (time.perf_counter() - started)

    ours = {row["key"]: row["label"] for row in rows}
    same = sum(ours[name] == answer[0]["label"] for (name, _), answer in zip(sample, answers, strict=True))
    if same < 0.99 * len(sample):
        raise SystemExit(f"the answers differ: {same} of {len(sample)} are the same")

    print(f"{platform.machine()}, {torch.get_num_threads()} cores, torch {torch.__version__}, {len(names)} labels")
    print(f"{'transformers pipeline, images in memory':45} {peer:8.0f} images/s")
    for what, made in (("decode.mode pil", summary), ("decode.mode exact", summary_fast)):
        rate, whole = (
            made.images_per_s,
            made.n_rows / sum(made.seconds[name] for name in ("prepare", "list", "ray", "labels", "flow", "publish")),
        )
        print(f"{'zsic, tar to Parquet, ' + what:45} {rate:8.0f} images/s, {rate / peer:.1f}x; {whole:.0f} with start")
    print(f"first answers equal on {same} of {len(sample)}")


if __name__ == "__main__":
    main()
