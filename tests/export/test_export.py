"""From outputs over real sources to trees and shards, and back."""

import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.place import DISK_AND_S3, Place
from support.published import Lake, Reply, by_index, fill, publish, relabel
from support.runs import LABELS, draw

from zsic.core.errors import MismatchError, SpecError, StoreError
from zsic.core.spec import StoreSpec
from zsic.export import Exported, ExportSpec, Selection, export
from zsic.export import shards as shards_module
from zsic.export.names import name_folders, read_id
from zsic.storage.objects import Objects
from zsic.storage.rows import RawRow
from zsic.storage.store import open_store


def run(
    lake: Lake, target: str = "there", form: str = "imagefolder", shard_mb: int = 512, **selection: Any
) -> Exported:
    spec = ExportSpec(
        lake.output,
        lake.place.at(target),
        form,
        Selection(**selection),
        shard_mb,
        lake.place.store,  # type: ignore[arg-type]
    )
    return export(spec)


def read_all(place: Place, folder: str) -> dict[str, bytes]:
    """Every object below a folder, by its name."""
    if place.s3 is None:
        root = Path(place.uri, folder)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    pages = place.s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=f"{folder}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {
        key.removeprefix(f"{folder}/"): place.s3.get_object(Bucket=place.bucket, Key=key)["Body"].read() for key in keys
    }


def read_tree(place: Place, folder: str) -> dict[int, tuple[str, bytes]]:
    """Label folder and bytes of each image, by the id in its name."""
    found = {}
    for name, data in read_all(place, folder).items():
        if name == "zsic-export.json":
            continue
        label, _, file = name.partition("/")
        row_id = read_id(file)
        assert row_id is not None, name
        assert row_id not in found
        found[row_id] = (label, data)
    return found


def read_shards(place: Place, folder: str) -> dict[int, dict[str, Any]]:
    """The samples of all shards, by id."""
    found: dict[int, dict[str, Any]] = {}
    for name, data in sorted(read_all(place, folder).items()):
        if not name.endswith(".tar"):
            continue
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[ending] = file.read()
        for sample in samples.values():
            told = json.loads(sample.pop("json"))
            number = int(sample.pop("cls"))
            ((ending, image),) = sample.items()
            assert told["id"] not in found
            found[told["id"]] = {**told, "number": number, "ending": ending, "image": image, "shard": name}
    return found


on_s3_too = pytest.mark.parametrize("lake", DISK_AND_S3, indirect=True)


@on_s3_too
def test_a_tree_has_every_image_byte_by_byte_under_its_label(lake: Lake) -> None:
    exported = run(lake)
    tree = read_tree(lake.place, "there")
    assert {row_id: data for row_id, (_, data) in tree.items()} == lake.images()
    folders = name_folders(LABELS)
    assert {row_id: label for row_id, (label, _) in tree.items()} == {
        row["id"]: folders[row["label"]] for row in lake.rows if row["label"] is not None
    }
    assert exported.n_written == exported.n_chosen == len(tree) == 26
    assert exported.n_bytes == sum(map(len, lake.images().values()))
    assert exported.failed == {}


def test_endings_follow_the_content(lake: Lake) -> None:
    run(lake)
    for name, data in read_all(lake.place, "there").items():
        if name != "zsic-export.json":
            kind = Image.open(io.BytesIO(data)).format
            assert name.endswith({"JPEG": ".jpg", "PNG": ".png"}[str(kind)])


@on_s3_too
def test_shards_have_every_image_with_its_label(lake: Lake) -> None:
    exported = run(lake, form="webdataset")
    samples = read_shards(lake.place, "there")
    assert {row_id: sample["image"] for row_id, sample in samples.items()} == lake.images()
    names = json.loads(read_all(lake.place, "there")["zsic-export.json"])["labels"]
    for row in lake.rows:
        if row["label"] is None:
            continue
        sample = samples[row["id"]]
        assert {name: sample[name] for name in ("label", "uri", "key")} == {n: row[n] for n in ("label", "uri", "key")}
        assert sample["score"] == pytest.approx(row["score"])
        assert names[sample["number"]] == row["label"]
    assert exported.n_shards == 1


def small_shards(lake: Lake, target: str, **selection: Any) -> Exported:
    """In shards of about four images; the smallest that a user can ask for is too large for a test."""
    spec = ExportSpec(lake.output, lake.place.at(target), "webdataset", Selection(**selection), 1, lake.place.store)
    with pytest.MonkeyPatch.context() as monkeypatch:
        original = shards_module.write_shards
        monkeypatch.setattr(
            "zsic.export.exporting.write_shards", lambda *a, shard_bytes, **k: original(*a, shard_bytes=25_000, **k)
        )
        return export(spec)


def test_shards_are_as_large_as_asked_for(lake: Lake) -> None:
    exported = small_shards(lake, "there")
    shards = {name: data for name, data in read_all(lake.place, "there").items() if name.endswith(".tar")}
    assert len(shards) == exported.n_shards
    assert len(shards) > 3
    assert all(len(data) <= 25_600 for data in shards.values())
    assert sorted(shards) == [f"shard-{number:06d}.tar" for number in range(len(shards))]
    order = [sample["id"] for sample in read_shards(lake.place, "there").values()]
    assert order == sorted(order)


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_the_same_command_again_reads_and_writes_nothing(
    lake: Lake, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lake, form=form)
    before = read_all(lake.place, "there")

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("an image was read")

    monkeypatch.setattr(Objects, "read", refuse)
    again = run(lake, form=form)
    assert (again.n_written, again.n_before, again.failed) == (0, 26, {})
    assert read_all(lake.place, "there") == before


def test_each_shard_is_read_once_though_parts_mix_them(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Objects.open_stream

    def count(self: Objects, info: Any) -> Any:
        opened.append(info.uri)
        return original(self, info)

    monkeypatch.setattr(Objects, "open_stream", count)
    run(lake)
    assert sorted(opened) == [lake.place.at(f"in/{name}") for name in ("a.tar", "b.tar")]


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_a_relabelled_output_leads_back_to_the_images(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(str(tmp_path), StoreSpec())
    fill(place)
    publish(place.at("out"), place.at("in"), lambda row: Reply("x", vector_D=[1, 0]), dim=2, backwards=True)
    relabel(place.at("out"), place.at("again"), "cat")
    opened: list[str] = []
    original = Objects.open_stream

    def count(self: Objects, info: Any) -> Any:
        opened.append(info.uri)
        return original(self, info)

    monkeypatch.setattr(Objects, "open_stream", count)
    exported = export(ExportSpec(place.at("again"), place.at("to"), form))  # type: ignore[arg-type]
    assert exported.n_by_label == {"cat": 26}
    assert exported.n_written == 26
    assert sorted(opened) == [place.at("in/a.tar"), place.at("in/b.tar")]
    if form == "imagefolder":
        found = [data for _, data in read_tree(place, "to").values()]
    else:
        found = [sample["image"] for sample in read_shards(place, "to").values()]
    assert sorted(found) == sorted([draw(n) for n in (*range(5), 10, 11, 12, *range(20, 38))])
    assert export(ExportSpec(place.at("again"), place.at("to"), form)).n_before == 26  # type: ignore[arg-type]


def test_a_relabelled_output_knows_the_column_of_images(tmp_path: Path) -> None:
    pictures = [draw(number) for number in range(4)]
    pq.write_table(pa.table({"picture": pictures, "image": [b"mask"] * 4}), tmp_path / "p.parquet")
    output, again = str(tmp_path / "out"), str(tmp_path / "again")
    source = str(tmp_path / "p.parquet")
    publish(output, source, lambda row: Reply("x", vector_D=[1, 0]), dim=2, image_column="picture")
    relabel(output, again, "cat")
    export(ExportSpec(again, str(tmp_path / "to"), "imagefolder"))
    assert sorted(path.read_bytes() for path in (tmp_path / "to" / "cat").iterdir()) == sorted(pictures)


class StopError(Exception):
    """The process dies."""


def wait_for_writers(place: Place, folder: str) -> None:
    """What is under way in threads when an export stops is written to its end; here, until nothing changes."""
    before: list[str] | None = None
    while (names := sorted(read_all(place, folder))) != before or any(name.endswith(".draft") for name in names):
        before = names
        time.sleep(0.1)


@pytest.mark.parametrize("n_before", [0, 5, 25])
def test_a_tree_that_was_interrupted_becomes_the_same(lake: Lake, n_before: int) -> None:
    run(lake, "whole")

    def stop(n_rows: int, n_all: int, n_bytes: int) -> None:
        if n_rows > n_before:
            raise StopError

    with pytest.raises(StopError):
        export(ExportSpec(lake.output, lake.place.at("cut"), "imagefolder", store=lake.place.store), stop)
    wait_for_writers(lake.place, "cut")
    n_there = len(read_tree(lake.place, "cut"))
    exported = run(lake, "cut")
    assert exported.n_before >= n_there > n_before - 1
    assert exported.n_before + exported.n_written == 26
    assert read_all(lake.place, "cut") == read_all(lake.place, "whole")


def test_shards_that_were_interrupted_anywhere_become_the_same(lake: Lake) -> None:
    small_shards(lake, "whole")
    whole = read_all(lake.place, "whole")
    assert len(whole) > 8
    for n_puts in range(0, len(whole), 1 if lake.place.s3 is None else 10):
        target = f"cut-{n_puts}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            store_class = type(open_store(lake.place.at(target), lake.place.store))
            left = [n_puts]

            def create(
                self: Any, name: str, data: bytes, left: list[int] = left, base: Any = store_class.create
            ) -> bool:
                if left[0] == 0:
                    raise StopError
                left[0] -= 1
                return bool(base(self, name, data))

            monkeypatch.setattr(store_class, "create", create)
            with pytest.raises(StopError):
                small_shards(lake, target)
        small_shards(lake, target)
        assert read_all(lake.place, target) == whole, n_puts


def test_what_is_gone_is_counted_and_named_and_taken_up_when_it_is_back(lake: Lake) -> None:
    lost = {name: read_all(lake.place, "in")[name] for name in ("a.tar", "loose/1.jpg")}
    # On disk the time is part of the version.
    times = {name: Path(lake.place.uri, "in", name).stat().st_mtime_ns for name in lost if lake.place.s3 is None}
    for name in lost:
        lake.place.delete(f"in/{name}")
    gone = {row["id"] for row in lake.rows if row["label"] is not None and row["uri"].endswith(("a.tar", "/1.jpg"))}
    assert len(gone) == 4
    for attempt in range(2):
        for exported, n in ((run(lake, "tree"), 22), (small_shards(lake, "shards"), 22)):
            assert exported.failed == {"missing": 4}
            assert len(exported.named) == 4
            assert "a.tar: x.jpg#2: missing" in exported.named[1]
            assert exported.n_written == (n if attempt == 0 else 0)
    expected = {row_id: data for row_id, data in lake.images().items() if row_id not in gone}
    assert {row_id: data for row_id, (_, data) in read_tree(lake.place, "tree").items()} == expected
    before = {name: data for name, data in read_all(lake.place, "shards").items() if name.endswith(".tar")}
    assert {row_id: sample["image"] for row_id, sample in read_shards(lake.place, "shards").items()} == expected

    for name, data in lost.items():
        lake.place.put(f"in/{name}", data)
    for name, mtime_ns in times.items():
        os.utime(Path(lake.place.uri, "in", name), ns=(mtime_ns, mtime_ns))
    assert run(lake, "tree").failed == {}
    exported = small_shards(lake, "shards")
    assert (exported.failed, exported.n_written) == ({}, 4)
    assert {row_id: data for row_id, (_, data) in read_tree(lake.place, "tree").items()} == lake.images()
    assert {row_id: sample["image"] for row_id, sample in read_shards(lake.place, "shards").items()} == lake.images()
    after = read_all(lake.place, "shards")
    assert {name: after[name] for name in before} == before
    again = small_shards(lake, "shards")
    assert (again.n_written, again.n_before) == (0, 26)


def test_what_has_become_something_else_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri\nx.jpg\ny.jpg\n")
    (tmp_path / "x.jpg").write_bytes(draw(1))
    (tmp_path / "y.jpg").write_bytes(draw(2))
    publish(str(tmp_path / "out"), str(tmp_path / "list.csv"))
    (tmp_path / "x.jpg").write_bytes(b"<html>not found</html>")
    exported = export(ExportSpec(str(tmp_path / "out"), str(tmp_path / "to"), "imagefolder"))
    assert exported.failed == {"changed": 1}
    assert exported.n_written == 1


def test_only_the_best_are_chosen(lake: Lake) -> None:
    answered = [row for row in lake.rows if row["label"] is not None]
    run(lake, "score", min_score=0.2)
    assert read_tree(lake.place, "score").keys() == {row["id"] for row in answered if row["score"] >= 0.2 - 1e-9}
    run(lake, "labels", labels=("red circle", "white ring"))
    kept = {row["id"] for row in answered if row["label"] in ("red circle", "white ring")}
    assert read_tree(lake.place, "labels").keys() == kept
    exported = run(lake, "best", per_label=2)
    best: list[int] = []
    for label in LABELS:
        ranked = sorted((-row["score"], row["id"]) for row in answered if row["label"] == label)
        best += [row_id for _, row_id in ranked[:2]]
    assert read_tree(lake.place, "best").keys() == set(best)
    assert set(exported.n_by_label.values()) == {2}


def test_the_margin_is_to_the_second_best(tmp_path: Path) -> None:
    write_loose(tmp_path, 6)
    margins = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]

    def answer(row: RawRow) -> Reply:
        return Reply("cat", 0.6, margins[row.id >> 24])

    publish(str(tmp_path / "out"), str(tmp_path / "in"), answer)
    spec = ExportSpec(str(tmp_path / "out"), str(tmp_path / "to"), "imagefolder", Selection(min_margin=0.25))
    assert export(spec).n_by_label == {"cat": 3}


def test_rejected_rows_are_left_out_and_nothing_is_an_error(tmp_path: Path) -> None:
    write_loose(tmp_path, 6)
    publish(str(tmp_path / "out"), str(tmp_path / "in"), lambda row: Reply("cat" if row.id >> 24 < 2 else None))
    assert export(ExportSpec(str(tmp_path / "out"), str(tmp_path / "to"), "imagefolder")).n_written == 2
    spec = ExportSpec(str(tmp_path / "out"), str(tmp_path / "no"), "imagefolder", Selection(min_score=0.9))
    with pytest.raises(SpecError, match="none of its 6 rows"):
        export(spec)
    assert not (tmp_path / "no").exists()


def write_loose(folder: Path, n: int) -> None:
    (folder / "in").mkdir()
    for number in range(n):
        (folder / "in" / f"{number}.jpg").write_bytes(draw(number))


def test_hostile_labels_stay_in_the_folder_and_apart(tmp_path: Path) -> None:
    hostile = ["../x", "a/b", "a%2Fb", "..", "", "Cat", "cat", "x" * 300, "x" * 301, "/etc/passwd", "猫\x1b[2J", "."]
    write_loose(tmp_path, len(hostile))
    publish(str(tmp_path / "out"), str(tmp_path / "in"), lambda row: Reply(hostile[row.id >> 24]))
    exported = export(ExportSpec(str(tmp_path / "out"), str(tmp_path / "to" / "here"), "imagefolder"))
    assert exported.n_by_label == dict.fromkeys(sorted(hostile), 1)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["here"]
    folders = [path for path in (tmp_path / "to" / "here").iterdir() if path.is_dir()]
    assert len(folders) == len(hostile)
    assert all(len(list(folder.iterdir())) == 1 for folder in folders)
    told = json.loads((tmp_path / "to" / "here" / "zsic-export.json").read_text())["labels"]
    assert set(told) == {folder.name for folder in folders}
    assert sorted(told.values()) == sorted(hostile)


def test_sets_are_named(tmp_path: Path) -> None:
    write_loose(tmp_path, 6)
    publish(str(tmp_path / "out"), str(tmp_path / "in"), set_name="shape")
    output, target = str(tmp_path / "out"), str(tmp_path / "to")
    with pytest.raises(SpecError, match=r"--set is missing; .* has the label sets shape"):
        export(ExportSpec(output, target, "imagefolder"))
    with pytest.raises(SpecError, match="--set is 'colour'"):
        export(ExportSpec(output, target, "imagefolder", Selection("colour")))
    assert export(ExportSpec(output, target, "imagefolder", Selection("shape", 0.1, 0.05))).n_written == 6


def test_a_folder_holds_one_export(lake: Lake) -> None:
    run(lake, min_score=0.2)
    with pytest.raises(MismatchError, match=r"min_score: this run None, that one 0\.2"):
        run(lake)
    with pytest.raises(MismatchError, match="format"):
        run(lake, form="webdataset", min_score=0.2)
    lake.place.put("in/new.jpg", draw(50))
    publish(lake.output, lake.place.at("in"), store=lake.place.store)
    with pytest.raises(MismatchError, match="snapshot: this run 2, that one 1"):
        run(lake, min_score=0.2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"form": "zip"}, "--format is 'zip'; use imagefolder or webdataset"),
        ({"shard_mb": 0}, "--shard-mb is 0"),
        ({"min_score": 70}, "--min-score is 70"),
        ({"min_margin": -1}, "--min-margin is -1"),
        ({"per_label": 0}, "--per-label is 0"),
        ({"labels": ("red cirlce",)}, "--labels-only: .* has no label 'red cirlce'"),
        ({"set_name": "shape"}, "--set is 'shape', but .* has one label set"),
        ({"target": "out"}, "the output itself"),
        ({"target": "out/in/it"}, "the output itself"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    write_loose(tmp_path, 3)
    store, rows = publish(str(tmp_path / "out"), str(tmp_path / "in"))
    made = Lake(Place(str(tmp_path), StoreSpec()), store, rows)
    with pytest.raises(SpecError, match=message):
        run(made, **changed)
    assert not (tmp_path / "there").exists()


def test_an_output_is_the_same_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loose(tmp_path, 3)
    publish(str(tmp_path / "out"), str(tmp_path / "in"))
    monkeypatch.chdir(tmp_path)
    for target, message in (
        ("./out", "the output itself"),
        (str(tmp_path / "out"), "the output itself"),
        ("", "empty"),
    ):
        with pytest.raises(SpecError, match=message):
            export(ExportSpec("out", target, "webdataset"))


def test_an_output_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing is published there yet"):
        export(ExportSpec(str(tmp_path), str(tmp_path / "to"), "imagefolder"))


def test_somebody_elses_file_is_not_overwritten(s3_place: Place) -> None:
    s3_place.put("in/a.jpg", draw(0))
    publish(s3_place.at("out"), s3_place.at("in"), store=s3_place.store)
    spec = ExportSpec(s3_place.at("out"), s3_place.at("there"), "imagefolder", store=s3_place.store)
    export(spec)
    s3_place.put(f"there/{LABELS[0]}/a-0-0.jpg", b"")
    with pytest.raises(StoreError, match="is something else"):
        export(spec)


def test_other_files_do_not_become_a_part_of_an_export(tmp_path: Path) -> None:
    write_loose(tmp_path, 2)
    publish(str(tmp_path / "out"), str(tmp_path / "in"), by_index)
    (tmp_path / "to" / "theirs").mkdir(parents=True)
    (tmp_path / "to" / ".hidden").touch()
    spec = ExportSpec(str(tmp_path / "out"), str(tmp_path / "to"), "imagefolder")
    (tmp_path / "to" / "theirs" / "a.jpg").touch()
    with pytest.raises(SpecError, match="holds other files, such as theirs"):
        export(spec)
    (tmp_path / "to" / "theirs" / "a.jpg").unlink()
    (tmp_path / "to" / "theirs").rmdir()
    assert export(spec).n_written == 2


def test_a_file_that_a_power_loss_has_emptied_is_written_again(tmp_path: Path) -> None:
    write_loose(tmp_path, 2)
    publish(str(tmp_path / "out"), str(tmp_path / "in"), by_index)
    spec = ExportSpec(str(tmp_path / "out"), str(tmp_path / "to"), "imagefolder")
    export(spec)
    (path,) = (tmp_path / "to" / LABELS[1]).iterdir()
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert export(spec).n_written == 1
    assert path.read_bytes() == whole
