"""How time and memory grow with the number of images: the storage's steps alone, and the memory of a whole run.

    python benchmarks/scale.py [--ledger 1e6,1e7,1e6s3] [--images 20000,200000] [--write]

- The storage's steps, without Ray: a listing of so many loose images (made up as it is read) becomes a plan; parts
  with five predictions a row are written for nine rows of ten; a resume reads the ledger and cuts what is pending into
  slices; the rest is written and published; then a second listing finds nothing new, and one that has grown by 1 %
  finds just that.  Each step is a process of its own, so that its peak memory is its own.  A size with `plan` behind
  it (`1e8plan`) stops after the plan; one with `s3` is played on an S3 server, moto's, which takes a core for itself.
- Whole runs on Ray: shards of 5,000 JPEGs of 32 pixels, a tiny encoder with random weights.  Three times a second the
  private memory of each process is read and entered under what it does.  Rows are counted, and the output is verified.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from zsic.core.predictions import Answers
from zsic.core.schema import INDEX_BITS, SOURCE_TOTAL, output_schema
from zsic.core.scoring import TopK
from zsic.core.spec import StoreSpec
from zsic.core.verdict import Verdict
from zsic.storage.output import Output, Work
from zsic.storage.pending import count_pending
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.slices import cut
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

FIELDS = {"job": "scale"}
SOURCE = {"uris": ["s3://lake/photos/"]}
STEPS = ("plan", "write 90 %", "resume", "write the rest", "publish", "nothing new", "1 % new")
LEDGER_BASE = 600 * 2**20
LEDGER_BYTES = dict.fromkeys(STEPS, 4) | {"nothing new": 60, "1 % new": 60}
"""Most memory of a step: the imports and the largest part; and, beside that, for each loose image."""
MOST_GROWTH = 1.6
"""Of a process of a whole run, from the smallest number of images to the largest."""
ROWS_PER_PART = 200_000
SHARD_IMAGES = 5_000


@dataclass(frozen=True)
class MadeUp:
    """A listing of so many loose images, in batches as a store's listing gives them."""

    n: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for begin in range(0, self.n, 10_000):
            stop = min(begin + 10_000, self.n)
            columns = {
                "uri": [f"s3://lake/photos/2026/11/26/camera-{at >> 20:04}/{at:012}.jpg" for at in range(begin, stop)],
                "kind": ["image"] * (stop - begin),
                "size": [110_000] * (stop - begin),
                "etag": [f"{at:032x}" for at in range(begin, stop)],
                "mtime_ns": [0] * (stop - begin),
                "columns": [None] * (stop - begin),
            }
            yield pa.RecordBatch.from_pydict(columns, SOURCE_SCHEMA)

    def covers(self, uri: str) -> bool:
        return True


def step(name: str, n: int, folder: str) -> dict[str, Any]:
    """Do one step; what it checks, it raises for."""
    output = Output(open_store(folder, StoreSpec(s3_endpoint_url=os.environ.get("SCALE_S3"))))
    if name in ("plan", "nothing new", "1 % new"):
        listing = MadeUp(n + n // 100 if name == "1 % new" else n)
        work = output.begin(listing, FIELDS, SOURCE)
        _expect(work, {"plan": n, "nothing new": 0, "1 % new": n // 100}[name])
        return {}
    plan = output.open_plan()
    assert plan is not None
    n_before = 9 * n // 10
    match name:
        case "write 90 %":
            _write_parts(output, plan, 0, n_before)
        case "write the rest":
            _write_parts(output, plan, n_before, n)
        case "resume":
            ledger = output.read_ledger(plan)
            pending = count_pending(output.store, plan, ledger)
            slices = cut(output.store, plan, ledger, images_per_slice=4_000)
            assert pending.n_loose == n - n_before
            return {"slices": len(slices)}
        case "publish":
            assert output.publish(plan, "scale").n_rows == n
    return {}


def _expect(work: Work, n_new: int) -> None:
    assert (work.plan.n_sources if work.plan else 0) == n_new
    if work.lease:
        work.lease.end()


def _write_parts(output: Output, plan: Any, begin: int, stop: int) -> None:
    labels = [f"label {number}" for number in range(1000)]
    schema = output_schema().append(pa.field(SOURCE_TOTAL, pa.int32()))
    for first in range(begin, stop, ROWS_PER_PART):
        n = min(ROWS_PER_PART, stop - first)
        rng = np.random.default_rng(first)
        answers = Answers(labels, labels, n, 5)
        scores_N5 = torch.from_numpy(np.sort(rng.random((n, 5), np.float32))[:, ::-1].copy())
        label_N5 = torch.from_numpy(rng.integers(0, 1000, (n, 5), np.int32))
        top = TopK(label_N5, scores_N5, scores_N5)
        answers.enter(np.arange(n), Verdict(top, label_N5[:, 0], scores_N5[:, 0]))
        columns = answers.to_arrays() | {
            "id": np.arange(first, first + n) << INDEX_BITS,
            "uri": [f"s3://lake/photos/2026/11/26/camera-{at >> 20:04}/{at:012}.jpg" for at in range(first, first + n)],
            "key": [None] * n,
            "outcome": ["ok"] * n,
            "detail": [None] * n,
            "width": [500] * n,
            "height": [375] * n,
            SOURCE_TOTAL: [None] * n,
        }
        table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        output.write_part(plan, table, {}, f"scale-{first:012}")


def _number(size: str) -> int:
    return int(float(size.removesuffix("plan").removesuffix("s3")))


@contextlib.contextmanager
def s3_server() -> Iterator[None]:
    """Moto's server in this process, and how the steps, which are processes of their own, reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ["SCALE_S3"] = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=os.environ["SCALE_S3"]).create_bucket(Bucket="scale")
    try:
        yield
    finally:
        server.stop()


def ledger_table(sizes: list[str], work: Path) -> list[str]:
    """Seconds and peak memory of each step at each size."""
    from measure import python, spend

    seconds: dict[str, dict[str, str]] = {name: {} for name in STEPS}
    for size in sizes:
        n = _number(size)
        folder = "s3://scale/out" if size.endswith("s3") else work / f"ledger-{n}"
        for name in STEPS[:1] if size.endswith("plan") else STEPS:
            spent = spend(python(__file__, "--step", name, "--n", n, "--out", folder), timeout=3600).result
            rate = n / spent["seconds"]
            if spent["peak"] > LEDGER_BASE + LEDGER_BYTES[name] * n:
                raise SystemExit(f"{name} of {n:,} images takes {spent['peak'] / 2**20:,.0f} MiB; too much")
            seconds[name][size] = f"{spent['seconds']:.1f} s, {rate / 1e3:,.0f} k/s, {spent['peak'] / 2**20:,.0f} MiB"
            print(f"{n:,} {name}: {seconds[name][size]}", file=sys.stderr)
    head = [f"{_number(size):,}{' on S3' * size.endswith('s3')}" for size in sizes]
    lines = ["| loose images | " + " | ".join(head) + " |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(seconds[name].get(size, "-") for size in sizes) + " |" for name in STEPS]
    return lines


# --- whole runs


def draw_shards(folder: Path, n_images: int) -> Path:
    """Shards of tiny pictures, all of them links to one."""
    from PIL import Image

    folder.mkdir()
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(SHARD_IMAGES):
            stream = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(stream, "JPEG")
            entry = tarfile.TarInfo(f"{number:05}.jpg")
            entry.size = len(stream.getvalue())
            tar.addfile(entry, io.BytesIO(stream.getvalue()))
    for shard in range(1, n_images // SHARD_IMAGES):
        os.link(first, folder / f"{shard:05}.tar")
    return folder


ROLES = {
    "Decode": "a decode task",
    "Encode": "the encoder",
    "Write": "a write task",
    "raylet": "raylet",
    "gcs_server": "GCS",
}


def watch_memory(command: list[str]) -> tuple[float, dict[str, int]]:
    """Seconds of a run, and the largest private memory that a process was seen with, by what it did."""
    from measure import psutil

    started, peaks = time.perf_counter(), {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(0.3)
            for each in [root, *root.children(recursive=True)] if process.poll() is None else []:
                try:
                    line, private = " ".join(each.cmdline()[:1]), each.memory_full_info().uss
                except psutil.Error:
                    continue
                role = "the driver" if each.pid == process.pid else _role(line)
                if role:
                    peaks[role] = max(peaks.get(role, 0), private)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, peaks


def _role(line: str) -> str | None:
    return next((role for word, role in ROLES.items() if word in line), None)


def memory_table(sizes: list[int], work: Path) -> list[str]:
    """Peak memory by role at each size."""
    from towers import TOWERS, make_checkpoint

    checkpoint = make_checkpoint(TOWERS["tiny"], work / "tiny", "cpu")
    runs = {}
    for n in sizes:
        source, out = draw_shards(work / f"shards-{n}", n), work / f"out-{n}"
        runs[n] = watch_memory(
            [
                *(sys.executable, "-m", "zsic.cli", "classify", f"{source}/*.tar", "--labels", "cat,dog,bird"),
                *("--model", str(checkpoint), "--output", str(out)),
            ]
        )
        if differences := list(find_differences(open_store(str(out), StoreSpec()))):
            raise SystemExit(f"{n} images: {differences[0]}")
        summary = json.loads(max((out / "_zsic" / "runs").glob("*.json")).read_text())
        assert summary["n_rows_in_all"] == n, summary
        print(f"{n:,}: {runs[n]}", file=sys.stderr)
    roles = ["the driver", *ROLES.values()]
    for role in ("the driver", "a decode task", "the encoder"):
        first, last = (runs[n][1].get(role, 0) for n in (sizes[0], sizes[-1]))
        if last > MOST_GROWTH * first:
            raise SystemExit(f"{role} takes {first / 2**20:,.0f} MiB and then {last / 2**20:,.0f}")
    lines = ["| peak private memory, MiB | " + " | ".join(f"{n:,} images" for n in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    lines += [
        f"| {role} | " + " | ".join(f"{runs[n][1].get(role, 0) / 2**20:,.0f}" for n in sizes) + " |" for role in roles
    ]
    lines.append("| seconds in all | " + " | ".join(f"{runs[n][0]:.0f}" for n in sizes) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", default="1e6,1e7", help="sizes; 1e8plan for the plan alone, 1e6s3 on an S3 server")
    parser.add_argument("--images", default="20000,200000", help="of whole runs")
    parser.add_argument("--write", action="store_true", help="keep the tables under benchmarks/results")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        started = time.perf_counter()
        told = step(options.step, options.n, options.out)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({**told, "seconds": time.perf_counter() - started, "peak": peak}))
        return
    from measure import machine, write_results

    with tempfile.TemporaryDirectory(prefix="scale-bench-") as work:
        lines = ["# How time and memory grow", "", f"`benchmarks/scale.py`; {machine()}.", ""]
        if options.ledger:
            with s3_server() if "s3" in options.ledger else contextlib.nullcontext():
                lines += [*ledger_table(options.ledger.split(","), Path(work)), ""]
        if options.images:
            lines += [*memory_table([int(float(n)) for n in options.images.split(",")], Path(work)), ""]
        text = "\n".join(lines)
        print(text)
        if options.write:
            print(write_results("scale", text))


if __name__ == "__main__":
    main()
