"""Both engines give the same rows, parts that the other resumes, and the same snapshot, for every kind of source."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import images
from support.place import Place
from support.published import fill
from support.runs import LABELS, cut_last_snapshot, draw, read_table, write_shard
from support.videos import make_video

from zsic.core.spec import JobSpec, StoreSpec, change_spec, make_spec
from zsic.pipeline.run import run
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

pytestmark = pytest.mark.ray

ALONE = {"block_rows": 8, "batch_size": 1, "encoder_threads": 1}
"""With batches of one image no number depends on which images share a batch."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every kind of source: loose images, hostile ones, tars, Parquet, a manifest, a video."""
    folder = tmp_path_factory.mktemp("sources")
    fill(Place(str(folder), StoreSpec()))
    hostile = folder / "in" / "hostile"
    hostile.mkdir()
    for number, case in enumerate(images.hostile_images().values()):
        (hostile / f"{number:03d}").write_bytes(case.data)
    (folder / "in" / "clip.mp4").write_bytes(make_video("mp4", 30, size=(96, 80), noise=True))
    (folder / "listed").mkdir()
    for number in range(40, 44):
        (folder / "listed" / f"{number}.png").write_bytes(draw(number))
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["uri"], *([f"listed/{number}.png"] for number in (40, 41, 42, 43, 99))])
    return [str(folder / "in"), str(folder / "list.csv")]


def spec_of(sources: list[str], out: Path, execution: dict[str, object], **fields: Any) -> JobSpec:
    fields = {
        "source": {"uris": sources, "fps": 1},
        "labels": [{"name": "colour", "names": ["red", "green", "blue"]}, {"name": "thing", "names": LABELS}],
        "output": {"uri": str(out), "embeddings": True, "rows_per_part": 30},
        **fields,
    }
    return make_spec({**fields, "execution": {**execution, **ALONE}})


def snapshot_of(out: Path) -> dict[str, Any]:
    """The last snapshot without what differs from run to run: names, sizes and digests of the parts."""
    last = json.loads(max((out / "_zsic" / "snapshot").glob("*.json")).read_text())
    assert sum(part["n_rows"] for part in last["parts"]) == last["n_rows"]
    return {name: value for name, value in last.items() if name in ("sequence", "n_rows", "fingerprint", "increment")}


def test_rows_and_snapshot_are_the_same_to_the_bit(
    sources: list[str], on_ray: dict[str, object], tmp_path: Path
) -> None:
    outs = {"ray": on_ray, "local": {"engine": "local"}}
    summaries = {name: run(spec_of(sources, tmp_path / name, execution)) for name, execution in outs.items()}
    assert [summary.engine for summary in summaries.values()] == ["ray", "local"]
    tables = {name: read_table(tmp_path / name) for name in outs}
    assert tables["ray"].num_rows > 80
    assert tables["ray"].schema.equals(tables["local"].schema, check_metadata=False)
    for name in tables["ray"].column_names:
        assert tables["ray"][name].equals(tables["local"][name]), name
    assert snapshot_of(tmp_path / "ray") == snapshot_of(tmp_path / "local")
    metadata = [
        {**pq.read_schema(next((tmp_path / name).glob("*.parquet"))).metadata, b"zsic.totals": b""} for name in outs
    ]
    assert metadata[0].keys() == metadata[1].keys()

    # The other labels, from the embeddings: by each engine from the output of the other.
    relabelled = []
    for name, execution in outs.items():
        other = tmp_path / ("local" if name == "ray" else "ray")
        out = tmp_path / f"relabelled-{name}"
        spec = make_spec(
            {
                "source": {"uris": str(other), "format": "output"},
                "labels": ["circle", "square", "star"],
                "output": str(out),
                "execution": execution,
            }
        )
        run(spec)
        relabelled.append(read_table(out))
    assert relabelled[0].num_rows == tables["ray"].num_rows
    assert (
        relabelled[0]
        .drop_columns(["id"])
        .sort_by([("uri", "ascending"), ("key", "ascending")])
        .equals(relabelled[1].drop_columns(["id"]).sort_by([("uri", "ascending"), ("key", "ascending")]))
    )


@pytest.mark.parametrize("first", ["local", "ray"])
def test_what_one_engine_began_the_other_finishes(first: str, on_ray: dict[str, object], tmp_path: Path) -> None:
    for shard in range(3):
        write_shard(tmp_path / f"s-{shard}.tar", range(shard * 10, shard * 10 + 10))
    engines: list[dict[str, object]] = [{"engine": "local"}, on_ray]
    begun, finished = engines if first == "local" else reversed(engines)
    out = tmp_path / "out"
    spec = spec_of([f"{tmp_path}/*.tar"], out, begun, output={"uri": str(out), "rows_per_part": 5})
    spec = change_spec(spec, {"execution": {"block_rows": 3}})
    run(spec)
    whole = read_table(out)
    cut_last_snapshot(out)
    parts = sorted(out.glob("*.parquet"))
    for part in parts[::2]:
        part.unlink()
    n_left = read_table(out, "id").num_rows
    other = spec_of([f"{tmp_path}/*.tar"], out, finished, output={"uri": str(out), "rows_per_part": 5})
    summary = run(other)
    assert (summary.resumed, summary.n_rows_before, summary.engine) == (True, n_left, finished["engine"])
    assert read_table(out).equals(whole)
    assert list(find_differences(open_store(str(out), spec.store))) == []
