"""The main job on both engines: rows, resume, enrichment, sources."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.runs import LABELS, assert_same_rows, cut_last_snapshot, draw, leftovers, read_table, write_shard

from zsic.core.errors import CapacityError, IncompleteError, MismatchError, ModelError, SourceError, SpecError
from zsic.core.spec import JobSpec, change_spec
from zsic.models.classifier import Classifier
from zsic.pipeline import cluster, execute, ray_engine
from zsic.pipeline.capacity import Node
from zsic.pipeline.run import run
from zsic.pipeline.watch import Progress, Watch
from zsic.storage.pending import Pending
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

SpecFor = Callable[..., JobSpec]


class Ears(Watch):
    """A watch that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.pending: list[Pending] = []
        self.progress: list[Progress] = []

    def on_step(self, text: str) -> None:
        self.steps.append(text)

    def on_start(self, pending: Pending) -> None:
        self.pending.append(pending)

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)


def names(n: int, *, start: int = 0) -> list[str]:
    return [f"{number:05d}.{('jpg', 'png')[number % 2]}" for number in range(start, start + n)]


@pytest.mark.ray
@pytest.mark.variant
def test_a_long_run_is_measured_first_and_a_cluster_that_shrinks_ends_it_resumable(
    ray_spec_for: SpecFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(12):
        write_shard(tmp_path / f"s-{shard:02}.tar", range(shard * 5, shard * 5 + 5))
    # Every run is a long one, and a hundredth of a second is enough to measure.
    monkeypatch.setattr(ray_engine, "LONG_S", 0)
    monkeypatch.setattr(ray_engine, "PROBE_S", 0.01)
    monkeypatch.setattr(execute, "PROBE_S", 0.01)
    calls = iter([False, False, True])

    def read_nodes() -> list[Node]:
        if next(calls, False):
            raise CapacityError("the cluster has no CPUs")
        return cluster.read_nodes()

    monkeypatch.setattr(ray_engine, "read_nodes", read_nodes)
    spec = ray_spec_for(f"{tmp_path}/*.tar")
    with pytest.raises(IncompleteError, match=r"the cluster has lost nodes: the cluster has no CPUs\nWhat is written"):
        run(spec)
    n_first = read_table(tmp_path / "out", "id").num_rows
    assert 0 < n_first < 60
    summary = run(spec)
    assert (summary.n_rows, summary.n_rows_before) == (60, n_first)
    # Each flow writes parts of its own.
    assert len({path.name.split("-")[3] for path in (tmp_path / "out").glob("*.parquet")}) == 3


def test_shards_give_the_answers_of_predict(spec_for: SpecFor, tmp_path: Path) -> None:
    for shard in range(3):
        write_shard(tmp_path / f"s-{shard}.tar", range(shard * 40, shard * 40 + 40))
    ears = Ears()
    summary = run(spec_for(f"{tmp_path}/s-{{0..2}}.tar", execution={"block_rows": 16}), ears)
    table = read_table(tmp_path / "out")

    assert summary.n_rows == table.num_rows == 120
    assert summary.outcomes == {"ok": 120}
    assert table["id"].to_pylist() == [shard << 24 | index for shard in range(3) for index in range(40)]
    assert table["key"].to_pylist() == names(120)
    assert table["uri"].to_pylist() == [f"{tmp_path}/s-{shard}.tar" for shard in range(3) for _ in range(40)]

    classifier = Classifier("demo", LABELS, top_k=5)
    for row, number in zip(table.to_pylist(), range(120), strict=True):
        answers = classifier.predict(draw(number))
        got = row["predictions"]
        assert len(got) == 5
        assert (row["label"], row["score"]) == (got[0]["label"], got[0]["score"])
        assert [each["score"] for each in got] == pytest.approx([each["score"] for each in answers], abs=1e-5)
        if answers[0]["score"] - answers[1]["score"] > 1e-4:
            assert row["label"] == answers[0]["label"]

    assert ears.steps[0] == "reading labels and model"
    assert ears.steps[-2:] == ["recounting", "publishing"]
    assert not ears.pending[0].exact
    assert leftovers(tmp_path / "out") == []


def test_a_rerun_reads_nothing_and_a_grown_folder_is_enriched(
    spec_for: SpecFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:03d}.img").write_bytes(draw(number))
    spec = spec_for(str(folder))
    assert run(spec).n_rows == 30
    before = read_table(tmp_path / "out").to_pylist()

    with monkeypatch.context() as patched:
        patched.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
        assert run(spec).state == "unchanged"

    # One sorts before all others: a watermark on names or times would lose it.
    (folder / "0.img").write_bytes(draw(100))
    (folder / "zzz.img").write_bytes(draw(101))
    ears = Ears()
    summary = run(spec, ears)
    assert (summary.n_rows, summary.n_sources) == (2, 2)
    assert (ears.pending[0].n_images, ears.pending[0].exact) == (2, True)
    after = read_table(tmp_path / "out").to_pylist()
    assert after[:30] == before
    assert [Path(row["uri"]).name for row in after[30:]] == ["0.img", "zzz.img"]


def test_an_interrupted_run_is_resumed_without_doing_a_row_twice(spec_for: SpecFor, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:03d}.jpg").write_bytes(draw(number))
    write_shard(tmp_path / "s.tar", range(100, 150))
    out = tmp_path / "out"
    spec = spec_for(
        [str(folder), str(tmp_path / "s.tar")],
        output={"uri": str(out), "rows_per_part": 8},
        execution={"block_rows": 8},
    )
    run(spec)
    whole = read_table(out)
    parts = sorted(out.glob("*.parquet"))
    assert len(parts) > 4

    # What a killed driver leaves: some of the parts, and no snapshot.
    cut_last_snapshot(out)
    for part in parts[1::2]:
        part.unlink()
    kept = {part.name: part.read_bytes() for part in parts[0::2]}
    n_kept = read_table(out).num_rows
    summary = run(spec)
    assert summary.resumed
    assert summary.n_rows_before == n_kept
    assert_same_rows(read_table(out), whole)
    assert {part.name: part.read_bytes() for part in out.glob("*.parquet") if part.name in kept} == kept

    # And a driver that died between the last part and the snapshot: nothing to classify, only to publish.
    cut_last_snapshot(out)
    ears = Ears()
    assert run(spec, ears).n_rows_before == 70
    assert ears.pending == []
    assert_same_rows(read_table(out), whole)


def test_a_shard_that_vanished_half_way_is_finished_with_the_reason(spec_for: SpecFor, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", range(40))
    out = tmp_path / "out"
    spec = spec_for(str(shard), output={"uri": str(out), "rows_per_part": 8}, execution={"block_rows": 8})
    run(spec)
    cut_last_snapshot(out)
    first, *_ = sorted(out.glob("*.parquet"))
    for part in out.glob("*.parquet"):
        if part != first:
            part.unlink()
    n_kept = read_table(out).num_rows
    shard.unlink()

    summary = run(spec)
    rows = read_table(out).to_pylist()
    assert summary.outcomes == {"missing": summary.n_rows - n_kept, "ok": n_kept}
    assert [row["outcome"] for row in rows].count("missing") >= 1
    assert [row["id"] for row in rows] == list(range(len(rows)))
    # An output that is finished can be enriched; one that is stuck could not.
    write_shard(tmp_path / "t.tar", range(5))
    assert run(spec_for(str(tmp_path / "t.tar"), output=spec.output.model_dump())).n_rows == 5


def test_an_open_plan_over_another_source_is_not_taken_up(spec_for: SpecFor, tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", range(3))
    write_shard(tmp_path / "t.tar", range(3))
    run(spec_for(str(tmp_path / "s.tar")))
    cut_last_snapshot(tmp_path / "out")
    with pytest.raises(SpecError, match="not finished"):
        run(spec_for(str(tmp_path / "t.tar")))


def test_changed_and_gone_images_supersede_their_rows(spec_for: SpecFor, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.png").write_bytes(draw(number))
    write_shard(folder / "s.tar", range(100, 110))
    spec = spec_for(str(folder), output={"uri": str(tmp_path / "out"), "rows_per_part": 5})
    run(spec)
    before = {(row["uri"], row["key"]): row for row in read_table(tmp_path / "out").to_pylist()}

    (folder / "03.png").write_bytes(draw(51))
    (folder / "04.png").unlink()
    write_shard(folder / "s.tar", range(200, 207))
    summary = run(spec)
    assert (summary.n_rows, summary.n_redone, summary.n_superseded, summary.n_rows_in_all) == (8, 2, 11, 19)
    after = {(row["uri"], row["key"]): row for row in read_table(tmp_path / "out").to_pylist()}
    assert len(after) == 19
    for (uri, key), row in after.items():
        if uri.endswith((".tar", "03.png")):
            assert row["width"] is not None
            continue
        assert row == before[uri, key]
    (anew,) = (row for (uri, _), row in after.items() if uri.endswith("03.png"))
    assert anew["id"] == before[anew["uri"], None]["id"]
    assert (anew["width"], anew["height"]) == Image.open(folder / "03.png").size

    assert run(spec).state == "unchanged"
    pruned = run(change_spec(spec, {"update": {"prune": True}}))
    assert (pruned.n_rows, pruned.n_dropped, pruned.n_rows_in_all) == (0, 1, 18)
    names = [Path(uri).name for uri in read_table(tmp_path / "out", "id", "uri")["uri"].to_pylist()]
    assert "04.png" not in names
    assert list(find_differences(open_store(str(tmp_path / "out"), spec.store))) == []


def test_failed_images_are_taken_up_when_asked_for(spec_for: SpecFor, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(draw(number))
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    spec = spec_for(str(folder))
    assert run(spec).outcomes == {"corrupt": 1, "ok": 4}
    assert run(spec).state == "unchanged"
    summary = run(change_spec(spec, {"update": {"retry_failed": True}}))
    assert (summary.n_rows, summary.n_superseded, summary.outcomes) == (1, 1, {"corrupt": 1})


def test_too_many_failures_stop_the_run_before_it_is_published(spec_for: SpecFor, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(draw(number) if number < 3 else b"damaged")
    spec = spec_for(str(folder), execution={"max_failures": 2})
    with pytest.raises(IncompleteError, match=r"3 of 6 images failed \(not_an_image 3\).*max_failures is 2"):
        run(spec)
    # It is stopped after the last part, or earlier where the progress was read before.
    parts = [pq.read_metadata(path).num_rows for path in (tmp_path / "out").glob("*.parquet")]
    summary = run(change_spec(spec, {"execution": {"max_failures": "100%"}}))
    assert (summary.n_rows, summary.n_rows_before) == (6, sum(parts))


def test_doubled_rows_are_published_once(spec_for: SpecFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "s.tar", range(6))
    out = tmp_path / "out"
    run(spec_for(str(tmp_path / "s.tar")))
    before = read_table(out)
    cut_last_snapshot(out)
    (part,) = out.glob("*.parquet")
    part.with_name(part.name.replace("000000", "000001")).write_bytes(part.read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
        assert run(spec_for(str(tmp_path / "s.tar"))).n_rows == 6
    assert read_table(out) == before


def test_a_second_run_at_once_is_refused(spec_for: SpecFor, tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", range(300))
    spec = spec_for(
        str(tmp_path / "s.tar"),
        output={"uri": str(tmp_path / "out"), "rows_per_part": 50},
        execution={"block_rows": 10},
    )
    told: list[str] = []

    class Second(Watch):
        def on_start(self, pending: Pending) -> None:
            code = "from zsic.storage.lease import *; from zsic.storage.disk_store import DiskStore; import sys\n"
            code += "from pathlib import Path; take_lease(DiskStore(Path(sys.argv[1])), describe_holder('other'))"
            done = subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=False
            )
            told.append(done.stderr)

    assert run(spec, Second()).n_rows == 300
    assert "IncompleteError: another run is at work" in told[0]
    assert f"process {os.getpid()}" in told[0]


@pytest.mark.parametrize("server", ["s3_bucket", pytest.param("real_s3_bucket", marks=pytest.mark.real_s3)])
def test_s3_gives_the_rows_of_the_disk(
    spec_for: SpecFor, tmp_path: Path, server: str, request: pytest.FixtureRequest
) -> None:
    import boto3

    endpoint, bucket = request.getfixturevalue(server)
    # The shared cluster's workers have the credentials of the double only.
    execution = {"address": None} if server == "real_s3_bucket" else {}
    client = boto3.client("s3", endpoint_url=endpoint)
    (tmp_path / "in").mkdir()
    for shard in range(2):
        path = write_shard(tmp_path / "in" / f"s-{shard}.tar", range(shard * 20, shard * 20 + 20))
        client.put_object(Bucket=bucket, Key=f"in/s-{shard}.tar", Body=path.read_bytes())
    run(spec_for(f"{tmp_path}/in/*.tar"))
    store = {"s3_endpoint_url": endpoint}
    run(spec_for(f"s3://{bucket}/in/*.tar", f"s3://{bucket}/out", store=store, execution=execution))

    (tmp_path / "fetched").mkdir()
    for entry in client.list_objects_v2(Bucket=bucket, Prefix="out/part-")["Contents"]:
        body = client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        (tmp_path / "fetched" / Path(entry["Key"]).name).write_bytes(body)
    ours, theirs = read_table(tmp_path / "out"), read_table(tmp_path / "fetched")
    assert_same_rows(theirs.drop_columns(["uri"]), ours.drop_columns(["uri"]))
    assert set(theirs["uri"].to_pylist()) == {f"s3://{bucket}/in/s-{shard}.tar" for shard in range(2)}


def test_every_hostile_file_is_one_row_with_its_reason(spec_for: SpecFor, tmp_path: Path) -> None:
    from support.images import hostile_images

    folder = tmp_path / "photos"
    folder.mkdir()
    cases = {f"{number:03d}": case for number, case in enumerate(hostile_images().values())}
    for name, case in cases.items():
        (folder / name).write_bytes(case.data)
        (folder / f"{name}-good").write_bytes(draw(1))
    summary = run(spec_for(str(folder), execution={"block_rows": 32}))
    rows = {Path(row["uri"]).name: row for row in read_table(tmp_path / "out").to_pylist()}
    assert summary.n_rows == len(rows) == 2 * len(cases)
    assert {name: rows[name]["outcome"] for name in cases} == {name: case.outcome for name, case in cases.items()}
    (first, *others) = (rows[f"{name}-good"]["predictions"] for name in cases)
    for other in others:  # no neighbour was harmed
        assert [each["label"] for each in other] == [each["label"] for each in first]
        assert [each["score"] for each in other] == pytest.approx([each["score"] for each in first], abs=1e-5)
    for row in rows.values():
        failed = row["outcome"] != "ok"
        assert (row["label"] is None) == (row["score"] is None) == (row["predictions"] is None) == failed
        assert (row["detail"] is not None) == failed


def test_broken_shards_give_the_rows_they_hold(spec_for: SpecFor, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(folder / "a.tar", range(5))
    data = write_shard(folder / "b.tar", range(20)).read_bytes()
    (folder / "b.tar").write_bytes(data[: len(data) // 2])
    (folder / "c.tar").write_bytes(b"this is no tar")
    with tarfile.open(folder / "d.tar", "w"):
        pass
    run(spec_for(str(folder)))
    table = read_table(tmp_path / "out", "id", "uri", "key", "outcome")
    found: dict[str, list[tuple[str | None, str]]] = {}
    for row in table.to_pylist():
        found.setdefault(Path(row["uri"]).name, []).append((row["key"], row["outcome"]))
    assert found["a.tar"] == [(name, "ok") for name in names(5)]
    assert 2 < len(found["b.tar"]) < 20
    assert found["b.tar"][-1] == (None, "bad_shard")
    assert found["b.tar"][:-1] == [(name, "ok") for name in names(len(found["b.tar"]) - 1)]
    assert found["c.tar"] == [(None, "bad_shard")]
    assert found["d.tar"] == [(None, "empty")]


def test_parquet_and_manifest_keep_their_columns(spec_for: SpecFor, tmp_path: Path) -> None:
    images = [draw(number) for number in range(6)]
    pq.write_table(
        pa.table(
            {
                "image": [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(images)],
                "owner": ["ann", "bob", None, "ann", "bob", "eve"],
                "year": [2020, 2021, 2022, 2023, 2024, 2025],
            }
        ),
        tmp_path / "hf.parquet",
        row_group_size=4,
    )
    run(spec_for({"uris": str(tmp_path / "hf.parquet"), "keep_columns": ["owner", "year"]}))
    table = read_table(tmp_path / "out")
    assert table["key"].to_pylist() == [str(number) for number in range(6)]
    assert table["owner"].to_pylist() == ["ann", "bob", None, "ann", "bob", "eve"]
    assert table["year"].to_pylist() == ["2020", "2021", "2022", "2023", "2024", "2025"]

    for number, data in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(data)
    lines = [json.dumps({"uri": f"{number}.png", "owner": f"o{number}"}) for number in range(6)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out2"
    run(spec_for({"uris": str(tmp_path / "list.jsonl"), "keep_columns": "owner"}, out))
    second = read_table(out)
    assert second["owner"].to_pylist() == [f"o{number}" for number in range(6)]
    assert second["label"].to_pylist() == table["label"].to_pylist()
    assert second["score"].to_pylist() == pytest.approx(table["score"].to_pylist(), abs=1e-5)


def test_embeddings_are_unit_vectors_that_give_the_similarities(spec_for: SpecFor, tmp_path: Path) -> None:
    import numpy as np

    from zsic.models.checkpoint import resolve
    from zsic.models.encoder import TextEncoder
    from zsic.models.head import compile_head

    spec = spec_for(
        str(write_shard(tmp_path / "s.tar", range(10))),
        output={"uri": str(tmp_path / "out"), "embeddings": True},
    )
    run(spec)
    table = read_table(tmp_path / "out")
    field = table.schema.field("embedding")
    dim = int(field.metadata[b"dim"])
    assert (field.type.byte_width, field.metadata[b"dtype"]) == (2 * dim, b"<f2")
    image_BD = np.array([np.frombuffer(data, "<f2") for data in table["embedding"].to_pylist()], np.float32)
    assert np.linalg.norm(image_BD, axis=1) == pytest.approx(1, abs=1e-3)

    from zsic.core.labels import load_labels

    head = compile_head(load_labels(spec.labels[0]), TextEncoder(resolve(spec.model)))
    similarity_BC = image_BD @ np.asarray(head.matrix_CD).T
    for row, similarity_C in zip(table.to_pylist(), similarity_BC, strict=True):
        for answer in row["predictions"]:
            assert answer["similarity"] == pytest.approx(similarity_C[LABELS.index(answer["label"])], abs=2e-3)


def test_what_is_wrong_is_said_before_anything_runs(spec_for: SpecFor, tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", range(3))
    with pytest.raises(SourceError, match="nowhere"):
        run(spec_for(str(tmp_path / "nowhere")))
    with pytest.raises(ModelError, match="no folder"):
        run(spec_for(str(tmp_path / "s.tar"), model="./no-model"))
    run(spec_for(str(tmp_path / "s.tar")))
    with pytest.raises(MismatchError, match=r"scoring\.top_k: this run 2, the output 5"):
        run(spec_for(str(tmp_path / "s.tar"), scoring={"top_k": 2}))
    with pytest.raises(MismatchError, match=r"decode\.mode"):
        run(spec_for(str(tmp_path / "s.tar"), decode={"mode": "pil"}))
