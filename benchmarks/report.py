"""What `zsic report` takes on an output of a million rows: seconds, and peak memory, of everything but the pictures.

    python benchmarks/report.py [--rows 1000000] [--labels 1000]

Parts and snapshot are written as a run writes them, with five predictions a row, one row in a hundred failed, and a
truth by which four of five answers are right.  The images are nowhere, so no picture is read.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zsic.core.schema import INDEX_BITS, PREDICTION, SOURCE_TOTAL, output_schema
from zsic.core.spec import SourceSpec, StoreSpec
from zsic.storage.output import Output
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.store import open_store

MOST_BYTES = 900 * 2**20
MOST_SECONDS = 60
"""On two cores; at a million rows with a truth."""
K = 5
ROWS_PER_PART = 200_000


@dataclass(frozen=True)
class Listing:
    n: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for begin in range(0, self.n, 10_000):
            uris = [uri_of(at) for at in range(begin, min(begin + 10_000, self.n))]
            n = len(uris)
            columns = [uris, ["image"] * n, [110_000] * n, [None] * n, [0] * n, [None] * n]
            arrays = [pa.array(each, field.type) for each, field in zip(columns, SOURCE_SCHEMA, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=SOURCE_SCHEMA)

    def covers(self, uri: str) -> bool:
        return True


def uri_of(at: int) -> str:
    return f"/nowhere/photos/2026/11/26/{at:09}.jpg"


def write_output(folder: Path, n_rows: int, n_labels: int) -> None:
    """Write the table, and `truth.parquet` beside it."""
    output = Output(open_store(str(folder / "out"), StoreSpec()))
    work = output.begin(
        Listing(n_rows), {"job": "report"}, SourceSpec(uris=("/nowhere/photos",)).model_dump(mode="json")
    )
    assert work.plan is not None
    assert work.lease is not None
    names = pa.array([f"label {number}" for number in range(n_labels)])
    schema = output_schema().append(pa.field(SOURCE_TOTAL, pa.int32()))
    truths = []
    for first in range(0, n_rows, ROWS_PER_PART):
        n = min(ROWS_PER_PART, n_rows - first)
        rng = np.random.default_rng(first)
        ok = rng.random(n) >= 0.01
        # Some labels are frequent and most are rare, as they are.
        best = np.minimum((rng.pareto(1.0, n) * 3).astype(np.int64), n_labels - 1)
        label_NK = (best[:, None] + np.arange(K) * 7) % n_labels
        score_NK = np.sort(rng.dirichlet([0.2] * K, n).astype(np.float32))[:, ::-1]
        entries = pa.StructArray.from_arrays(
            [
                names.take(pa.array(label_NK[ok].ravel())),
                pa.array(score_NK[ok].ravel()),
                pa.array((0.2 + 0.1 * score_NK[ok]).ravel()),
            ],
            fields=list(PREDICTION),
        )
        offsets = pa.array(np.append(0, np.cumsum(ok * K)).astype(np.int32))
        lists = pa.ListArray.from_arrays(offsets, entries, schema.field("predictions").type, mask=pa.array(~ok))
        uris = pa.array([uri_of(at) for at in range(first, first + n)])
        columns = {
            "id": pa.array(np.arange(first, first + n) << INDEX_BITS),
            "uri": uris,
            "outcome": pa.array(np.where(ok, "ok", "corrupt")),
            "width": pa.array(np.full(n, 500, np.int32)),
            "height": pa.array(np.full(n, 375, np.int32)),
            "label": names.take(pa.array(best, mask=~ok)),
            "score": pa.array(score_NK[:, 0].copy(), mask=~ok),
            "predictions": lists,
        }
        arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in schema]
        metadata = {"labels": names.to_pylist() if n_labels <= 1000 else None, "model": "bench"}
        output.write_part(work.plan, pa.table(arrays, schema=schema), metadata, f"bench-{first:09}")
        right = rng.random(n) < 0.8
        true = np.where(right, best, (best + rng.integers(1, 4, n)) % n_labels)
        truths.append(pa.table({"uri": uris, "label": names.take(pa.array(true))}))
    pq.write_table(pa.concat_tables(truths), folder / "truth.parquet")
    output.publish(work.plan, "bench")
    work.lease.end()


def step(folder: Path, with_truth: bool) -> dict[str, float]:
    """Make a report in this process, and say what it took."""
    from zsic.evaluate import load_truth
    from zsic.report import make_report, render

    started = time.perf_counter()
    truth = load_truth(str(folder / "truth.parquet")) if with_truth else None
    report = make_report(open_store(str(folder / "out"), StoreSpec()), truth=truth, with_pictures=False)
    collected = time.perf_counter()
    page = render(report).encode()
    if report.evaluation is not None:
        assert sum(row.precision.n for row in report.evaluation.per_label) == report.survey.n_ok
    return {
        "collect_s": collected - started,
        "render_s": time.perf_counter() - collected,
        "page_bytes": len(page),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "n_rows": report.survey.n_rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--labels", type=int, default=1_000)
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--truth", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step and options.write:
        write_output(options.step, options.rows, options.labels)
        print("{}")
        return
    if options.step:
        print(json.dumps(step(options.step, options.truth)))
        return
    from measure import machine, python, spend

    print(f"`benchmarks/report.py`; {machine()}.\n")
    print("| rows | labels | truth | collect | render | peak memory | page |", "|---" * 7 + "|", sep="\n")
    with tempfile.TemporaryDirectory(prefix="report-bench-") as folder:
        # In a process of its own: a child's peak begins with what its parent holds.
        size = ("--rows", options.rows, "--labels", options.labels)
        spend(python(__file__, "--step", folder, "--write", *size), timeout=3600)
        for flags in ((), ("--truth",)):
            spent = spend(python(__file__, "--step", folder, *flags), timeout=3600).result
            assert spent["n_rows"] == options.rows
            told = f"{spent['collect_s']:.1f} s | {spent['render_s']:.1f} s | {spent['peak_bytes'] / 2**20:,.0f} MiB"
            truth = "yes" if flags else "no"
            print(f"| {options.rows:,} | {options.labels:,} | {truth} | {told} | {spent['page_bytes'] / 1e6:.1f} MB |")
            if options.rows <= 1_000_000 and spent["collect_s"] + spent["render_s"] > MOST_SECONDS:
                sys.exit("that is too long")
            if options.rows <= 1_000_000 and spent["peak_bytes"] > MOST_BYTES:
                sys.exit("that is too much memory")


if __name__ == "__main__":
    main()
