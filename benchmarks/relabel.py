"""New labels for an output of a million rows, through Ray: `zsic.run` as `zsic relabel` calls it.

    python benchmarks/relabel.py [--rows 1000000] [--dim 512] [--labels 10,1000] [--write]

The output is made up: unit vectors by chance, in parts of 100,000 rows, published by the protocol.  For each number of
labels the job runs in a process of its own, Ray's start included.  `flow` is the time while rows are answered and
written; beside it stand what one core needs to read, answer and serialise them, without Ray, and its share.  Answers
are compared with a product in float64.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measure import machine, write_results

from zsic.core.embedding import to_column
from zsic.core.schema import INDEX_BITS, SOURCE_TOTAL, output_schema
from zsic.core.spec import ModelSpec, StoreSpec
from zsic.models.checkpoint import resolve
from zsic.models.head import Head
from zsic.models.heads import Heads
from zsic.models.relabel import relabel
from zsic.storage.origin import read_rows
from zsic.storage.output import Output
from zsic.storage.part import to_parquet
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.snapshot import last_snapshot
from zsic.storage.store import open_store

ROWS_PER_PART = 100_000
TOP_K = 5
LEAST = 0.05
"""Of what its cores could do without Ray: floor of the rate while rows flow, most of which is the start of workers."""


class Listing:
    """One shard for each part."""

    def __init__(self, n_shards: int) -> None:
        self._n_shards = n_shards

    def __iter__(self) -> Any:
        n = self._n_shards
        uris = [f"s3://lake/photos-{number:05}.tar" for number in range(n)]
        columns = {"uri": uris, "kind": ["tar"] * n, "size": [10**9] * n, "etag": uris}
        yield pa.RecordBatch.from_pydict({**columns, "mtime_ns": [None] * n, "columns": [None] * n}, SOURCE_SCHEMA)

    def covers(self, uri: str) -> bool:
        return True


def vectors(number: int, n: int, dim: int) -> np.ndarray:
    row_ND = np.random.default_rng(number).standard_normal((n, dim), np.float32)
    return (row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)).astype("<f2")


def make_output(folder: str, n_rows: int, dim: int) -> None:
    output = Output(open_store(folder, StoreSpec()))
    model = {"digest": resolve(ModelSpec()).digest, "dtype": "float32"}
    fields = {"model": model, "output": {"embeddings": True, "keep_columns": []}}
    n_rows = max(n_rows, ROWS_PER_PART)
    n_parts = -(-n_rows // ROWS_PER_PART)
    work = output.begin(Listing(n_parts), fields, {"uris": ["s3://lake"]})
    assert work.plan is not None
    assert work.lease is not None
    schema = output_schema(embedding_dim=dim).append(pa.field(SOURCE_TOTAL, pa.int32()))
    for number in range(n_parts):
        n = min(ROWS_PER_PART, n_rows - number * ROWS_PER_PART)
        columns: dict[str, Any] = {
            "id": number << INDEX_BITS | np.arange(n),
            "uri": [f"s3://lake/photos-{number:05}.tar"] * n,
            "key": [f"{at:08}.jpg" for at in range(n)],
            "outcome": ["ok"] * n,
            "width": np.full(n, 500, np.int32),
            "height": np.full(n, 375, np.int32),
            "embedding": to_column(vectors(number, n, dim), np.ones(n, bool)),
            SOURCE_TOTAL: [None] * (n - 1) + [n],
        }
        arrays = [
            pa.array(columns.get(field.name, [None] * n), field.type) for field in schema if field.name != "embedding"
        ]
        arrays.insert(schema.get_field_index("embedding"), columns["embedding"])
        output.write_part(
            work.plan, pa.table(arrays, schema=schema), {"model": "demo", "revision": None}, f"b-{number:06}"
        )
    output.publish(work.plan, "bench")
    work.lease.end()


def make_head(path: Path, n_labels: int, dim: int) -> Head:
    matrix_CD = torch.randn(n_labels, dim, generator=torch.Generator().manual_seed(n_labels))
    unit_CD = torch.nn.functional.normalize(matrix_CD, dim=1)
    names = tuple(f"label {number}" for number in range(n_labels))
    head = Head(names, unit_CD, 100.0, 0.0, "softmax", ((),) * n_labels, resolve(ModelSpec()).digest)
    head.save(path)
    return head


def one_core(folder: str, head: Head) -> float:
    """Seconds of CPU a row: read, answer, serialise."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    store = open_store(folder, StoreSpec())
    snapshot = last_snapshot(store)
    assert snapshot is not None
    copied = [field.name for field in output_schema((), 1, ()) if field.name != "id"]
    schema = output_schema().append(pa.field(SOURCE_TOTAL, pa.int32()))
    taken = []
    for part in snapshot.parts[:3]:
        started = time.process_time()
        block = read_rows(store, part.name, copied)
        assert block is not None
        columns = {name: block[name] for name in copied} | relabel(block, Heads((head,), (TOP_K,)))
        columns |= {"id": pa.array(np.arange(block.num_rows)), SOURCE_TOTAL: pa.nulls(block.num_rows, pa.int32())}
        to_parquet(pa.table([columns[field.name] for field in schema], schema=schema), {})
        taken.append((time.process_time() - started) / block.num_rows)
    return float(np.median(taken))


def check(out: Path, head: Head, dim: int) -> None:
    """Raise where an answer is not the best by float64."""
    import pyarrow.parquet as pq

    image_ND, matrix_CD = vectors(0, ROWS_PER_PART, dim), head.matrix_CD.double().numpy()
    n_checked = 0
    for path in out.glob("*.parquet"):
        for row in pq.read_table(path, columns=["key", "uri", "label"]).to_pylist()[::100]:
            if row["uri"].endswith("-00000.tar"):
                similarity_C = matrix_CD @ image_ND[int(row["key"][:8])].astype("f8")
                if similarity_C[head.labels.index(row["label"])] < similarity_C.max() - 1e-6:
                    raise SystemExit(f"{row} is not the best answer")
                n_checked += 1
    assert n_checked


def run_job(folder: str, head: Path, out: Path) -> dict[str, Any]:
    """What the job's own record says, and how long the process took."""
    started = time.monotonic()
    command = ["relabel", folder, "--head", str(head), "--output", str(out)]
    subprocess.run([sys.executable, "-m", "zsic", *command], check=True, capture_output=True)
    (record,) = (out / "_zsic" / "runs").glob("*.json")
    return {**json.loads(record.read_text()), "wall_s": time.monotonic() - started}


def measure(options: argparse.Namespace, work: Path) -> tuple[str, list[str]]:
    folder = str(work / "out")
    make_output(folder, options.rows, options.dim)
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# New labels for an output, through Ray",
        "",
        f"`benchmarks/relabel.py --rows {options.rows} --dim {options.dim}`; {machine()}.",
        "",
        "| labels | flow s | rows/s | of its cores without Ray | one core, us a row | whole command s |",
        "|---|---|---|---|---|---|",
    ]
    misses = []
    for n_labels in map(int, options.labels.split(",")):
        path, out = work / f"{n_labels}.safetensors", work / f"labels-{n_labels}"
        head = make_head(path, n_labels, options.dim)
        record = run_job(folder, path, out)
        each = one_core(folder, head)
        check(out, head, options.dim)
        flow = record["seconds"]["flow"]
        rate = options.rows / flow
        share = rate * each / cores
        lines.append(
            f"| {n_labels:,} | {flow:.1f} | {rate:,.0f} | {share:.0%} | {1e6 * each:.1f} | {record['wall_s']:.0f} |"
        )
        if share < LEAST and options.rows >= 1_000_000:
            misses.append(f"{n_labels} labels: {share:.0%} of its cores, less than {LEAST:.0%}")
    return "\n".join([*lines, ""]), misses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--labels", default="10,1000")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relabel-bench-") as work:
        text, misses = measure(options, Path(work))
    print(text)
    if options.write:
        print(write_results("relabel", text))
    if misses:
        sys.exit("; ".join(misses))


if __name__ == "__main__":
    main()
