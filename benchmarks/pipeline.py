"""The job against its own bare functions, and against the peers, on the same pictures in one run.

    python benchmarks/pipeline.py [--images 2000] [--shards 'photos/*.tar'] [--write]

Everything is measured as CPU seconds of whole process trees, twice, with few images and with many: the difference is
what an image costs, and what is left is what it costs to start.

- `bare`: one process that lists, reads, decodes, encodes, ranks and makes the bytes of a part by the job's own
  functions, one after the other; its steps are the profile of an image.
- `zsic, shards` and `zsic, files`: the job, from tar shards and from loose files to Parquet; once with int8.
- `ray data`: the shape that Ray's documentation shows: `read_images`, a transformers processor in one actor pool, the
  model in another, `write_parquet`.
- `transformers`: the zero-shot pipeline, pictures read one after the other, batches of 32.

The answers of all are compared with the bare loop's before anything is printed.  Floors: an image of the job costs at
most 1.2 times an image of the bare loop, and Ray's shape costs at least 3 times an image of the job.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from measure import Spent, machine, python, spend, write_results
from peers import BATCH, ray_data, transformers_pipeline
from pictures import draw_shard, link_files, link_shards

MOST_OF_BARE = 1.2
LEAST_OF_RAY = 3.0
TOP_K = 5


@dataclass
class Bare:
    """What the bare loop made, and the CPU seconds of its steps."""

    n: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Laps:
    """CPU seconds of this process between laps, summed by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def bare(source: Path, threads: int) -> Bare:
    """One process, the job's own functions, one after the other: from the listing to the bytes of a part."""
    import numpy as np
    import pyarrow as pa
    import torch

    from zsic.core.labels import load_labels
    from zsic.core.predictions import Answers
    from zsic.core.preprocess import prepare
    from zsic.core.schema import SOURCE_TOTAL, output_schema
    from zsic.models.checkpoint import resolve
    from zsic.models.encoder import ImageEncoder
    from zsic.models.head_cache import find_head
    from zsic.storage.objects import Objects
    from zsic.storage.part import to_parquet
    from zsic.storage.rows import read_sources_rows
    from zsic.storage.sample import Source
    from zsic.storage.sources import list_sources

    torch.set_num_threads(threads)
    spec = job_spec(source, Path("/nonexistent"))
    objects, checkpoint = Objects(spec.store), resolve(spec.model)
    encoder = ImageEncoder(checkpoint)
    head = find_head(load_labels(spec.labels[0]), checkpoint)
    schema = output_schema().append(pa.field(SOURCE_TOTAL, pa.int32()))
    made, laps = Bare(), Laps()
    sources = [Source(**row) for batch in list_sources(spec.source, objects) for row in batch.to_pylist()]
    rows = read_sources_rows(list(enumerate(sources)), objects, spec)
    tables = []
    laps.lap("list")
    while batch := list(islice(rows, BATCH)):
        laps.lap("read")
        pixels_BHW3 = np.zeros((len(batch), *encoder.geometry.size, 3), np.uint8)
        sizes = [
            prepare(row.data or b"", encoder.geometry, spec.decode, pixels_HW3)
            for row, pixels_HW3 in zip(batch, pixels_BHW3, strict=True)
        ]
        laps.lap("decode and resize")
        image_BD = encoder.encode(pixels_BHW3)
        laps.lap("image tower")
        verdict = head.judge(image_BD, TOP_K)
        laps.lap("top-K")
        answers = Answers(head.labels, head.answers, len(batch), TOP_K)
        answers.enter(np.arange(len(batch)), verdict)
        columns = answers.to_arrays() | {
            "id": [row.id for row in batch],
            "uri": [row.uri for row in batch],
            "key": [row.key for row in batch],
            "outcome": ["ok"] * len(batch),
            "detail": [None] * len(batch),
            "width": [size.width for size in sizes],
            "height": [size.height for size in sizes],
            SOURCE_TOTAL: [row.source_total for row in batch],
        }
        tables.append(pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema))
        laps.lap("rows of the table")
    made.n = sum(table.num_rows for table in tables)
    to_parquet(pa.concat_tables(tables), {})
    laps.lap("part")
    made.seconds = laps.seconds
    for table in tables:
        for uri, key, label in zip(*(table[name].to_pylist() for name in ("uri", "key", "label")), strict=True):
            made.answers[f"{Path(uri).stem}/{key or Path(uri).name}"] = label
    return made


def job_spec(source: Path, out: Path, **model: Any) -> Any:
    from zsic.core.spec import make_spec
    from zsic.demo.label_sets import labels

    return make_spec(
        {
            "source": str(source),
            "labels": labels(),
            "output": str(out),
            "model": {"name": "demo", **model},
            "scoring": {"top_k": TOP_K},
        }
    )


def zsic_job(source: Path, out: Path, **model: Any) -> dict[str, Any]:
    import zsic

    summary = zsic.run(job_spec(source, out, **model))
    return {"n": summary.n_rows, "outcomes": summary.outcomes, "seconds": summary.seconds}


# --- each in a process of its own


def _part(options: argparse.Namespace) -> dict[str, Any]:
    """Classify, and give the first answers."""
    source, out = Path(options.source), Path(options.out)
    match options.part:
        case "bare":
            return asdict(bare(source, 1))
        case "zsic":
            return {**zsic_job(source, out), "answers": _answers(out, "uri", "key")}
        case "int8":
            return {**zsic_job(source, out, quantize="int8"), "answers": _answers(out, "uri", "key")}
        case "ray":
            return {**ray_data(source, out), "answers": _answers(out, "path", None)}
        case _:
            answers = list(transformers_pipeline(source))
    return {"n": len(answers), "answers": {key: label for key, label, _ in answers}}


def _answers(out: Path, uri: str, key: str | None) -> dict[str, str]:
    import pyarrow.parquet as pq

    table = pq.read_table(sorted(out.glob("*.parquet")), columns=[uri, "label", *([key] if key else [])])
    return {
        f"{Path(row[uri]).stem}/{(row[key] if key else None) or Path(row[uri]).name}": row["label"]
        for row in islice(table.to_pylist(), 20_000)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="of the longer of two measurements")
    parser.add_argument("--shards", help="tar shards of JPEG photographs, a glob; drawn ones without it")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="/nonexistent", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(_part(options)))
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as work:
        _compare(options, Path(work))


def _compare(options: argparse.Namespace, work: Path) -> None:
    shards = sorted(Path().glob(options.shards)) if options.shards else [draw_shard(work / "drawn.tar", 200)]
    if options.shards:
        shards = [Path(os.path.realpath(shard)) for shard in shards]
        copies = [work / shard.name for shard in shards]
        for shard, copy in zip(shards, copies, strict=True):
            copy.write_bytes(shard.read_bytes())
        shards = copies
    many, few = options.images, options.images // 5
    sources: dict[tuple[str, int], Path] = {}
    for n in (few, many):
        sources["shards", n] = link_shards(shards, work / f"shards-{n}", n)
        sources["files", n] = link_files(shards, work / f"files-{n}", n)
    spent: dict[str, tuple[Spent, Spent]] = {}
    for name, part, kind in (
        ("bare", "bare", "shards"),
        ("zsic, shards", "zsic", "shards"),
        ("zsic, int8, shards", "int8", "shards"),
        ("bare, files", "bare", "files"),
        ("zsic, files", "zsic", "files"),
        ("ray data, files", "ray", "files"),
        ("transformers, files", "transformers", "files"),
    ):
        both = [
            spend(
                python(__file__, "--part", part, "--source", sources[kind, n], "--out", work / f"out-{len(spent)}-{n}")
            )
            for n in (few, many)
        ]
        spent[name] = (both[0], both[1])
        print(f"{name}: {both[0].cpu_s:.1f} and {both[1].cpu_s:.1f} CPU s", file=sys.stderr)
    _check(spent)
    text, misses = _table(spent, few, many, options)
    print(text)
    if options.write:
        print(write_results("pipeline", text))
    if misses:
        raise SystemExit("; ".join(misses))


def _check(spent: dict[str, tuple[Spent, Spent]]) -> None:
    for kind in ("shards", "files"):
        expected = spent["bare" if kind == "shards" else "bare, files"][1].result["answers"]
        for name, (_, larger) in spent.items():
            if not name.endswith(kind) or name.startswith("bare"):
                continue
            got = larger.result["answers"]
            same = sum(got.get(key) == label for key, label in expected.items())
            # Others resize to other pixels, by rounding; and int8 is another arithmetic.
            if same < (1.0 if name in ("zsic, shards", "zsic, files") else 0.95) * len(expected):
                raise SystemExit(f"{name}: only {same} of {len(expected)} answers are the bare loop's")


def _table(
    spent: dict[str, tuple[Spent, Spent]], few: int, many: int, options: argparse.Namespace
) -> tuple[str, list[str]]:
    each = {name: (b.cpu_s - a.cpu_s) / (many - few) * 1e3 for name, (a, b) in spent.items()}
    # Where a start took so much longer that nothing is left for the images, there is no rate.
    wall = {name: (many - few) / max(b.wall_s - a.wall_s, 1e-9) for name, (a, b) in spent.items()}
    shown = {name: f"{rate:.0f}" if rate < 1e6 else "-" for name, rate in wall.items()}
    start = {name: a.cpu_s - each[name] * few / 1e3 for name, (a, _) in spent.items()}
    start_wall = {name: a.wall_s - few / wall[name] for name, (a, _) in spent.items()}
    pictures = options.shards or "drawn pictures"
    lines = [
        "# What an image costs: the job, its bare functions, and the peers",
        "",
        f"`benchmarks/pipeline.py`, {few} and {many} images of {pictures}, bundled model; {machine()}.",
        "",
        "| | CPU ms an image | of bare | images/s (wall) | start, CPU s | start, wall s | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (_, larger) in spent.items():
        base = each["bare, files" if name.endswith("files") else "bare"]
        lines.append(
            f"| {name} | {each[name]:.2f} | {each[name] / base:.2f} | {shown[name]} | {start[name]:.1f} "
            f"| {start_wall[name]:.1f} | {larger.peak_bytes / 2**30:.1f} |"
        )
    steps = spent["bare"][1].result["seconds"]
    lines += [
        "",
        "Where the bare loop spends an image, from shards: "
        + ", ".join(f"{step} {seconds / many * 1e3:.2f} ms" for step, seconds in steps.items() if step != "list")
        + ".",
    ]
    misses = []
    if (ratio := each["zsic, shards"] / each["bare"]) > MOST_OF_BARE:
        misses.append(f"an image of the job costs {ratio:.2f} times one of the bare loop, more than {MOST_OF_BARE}")
    if (ratio := each["ray data, files"] / each["zsic, files"]) < LEAST_OF_RAY:
        misses.append(f"Ray's documented shape costs {ratio:.1f} times the job, less than {LEAST_OF_RAY}")
    return "\n".join([*lines, ""]), misses


if __name__ == "__main__":
    main()
