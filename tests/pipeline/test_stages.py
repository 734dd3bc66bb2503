"""The two stages by themselves, in this process: what goes in comes out, in the same places."""

import io
import json
import signal
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support import traps
from support.runs import LABELS, assert_same_rows, draw, write_shard

from zsic.core.errors import IncompleteError, SourceError
from zsic.core.labels import load_labels
from zsic.core.outcome import Outcome
from zsic.core.schema import PIXELS, SOURCE_TOTAL, decoded_schema
from zsic.core.spec import JobSpec, LabelsSpec, ModelSpec, StoreSpec, make_spec
from zsic.models.checkpoint import resolve
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, compile_head
from zsic.models.heads import Heads
from zsic.models.processor import read_geometry
from zsic.pipeline import stages
from zsic.pipeline.sight import Sight
from zsic.pipeline.sink import PartSink
from zsic.pipeline.stages import Decode, Encode
from zsic.storage.objects import Objects
from zsic.storage.output import Output
from zsic.storage.part import to_parquet
from zsic.storage.slices import Slice, cut
from zsic.storage.sources import list_sources
from zsic.storage.store import open_store


class Deaf:
    """A reporter for nobody."""

    def add_decoded(self, n_rows: int, n_bytes: int, fetch_s: float, decode_s: float) -> None: ...
    def add_encoded(self, n_images: int, encode_s: float) -> None: ...
    def add_outcomes(self, outcomes: list[str]) -> None: ...
    def add_part(self, write_s: float) -> None: ...


@pytest.fixture(scope="module")
def head() -> Head:
    return compile_head(load_labels(LabelsSpec(names=tuple(LABELS))), TextEncoder(resolve(ModelSpec())))


def decode(
    source: object, tmp_path: Path, *, block_rows: int, skip: tuple[tuple[int, int], ...] = ()
) -> list[pa.Table]:
    """The blocks of all slices of a source."""
    return list(decode_lazily(source, tmp_path, block_rows=block_rows, skip=skip))


def decode_lazily(
    source: object, tmp_path: Path, *, block_rows: int, skip: tuple[tuple[int, int], ...] = ()
) -> Iterator[pa.Table]:
    spec = make_spec({"source": source, "labels": LABELS, "output": str(tmp_path / "out")})
    store = open_store(spec.output.uri, spec.store)
    output = Output(store)
    work = output.begin(list_sources(spec.source, Objects(spec.store)), {}, {})
    assert work.plan is not None
    assert work.lease is not None
    work.lease.end()
    slices = cut(store, work.plan, output.read_ledger(work.plan), images_per_slice=100)
    if skip:
        slices = [Slice(slices[0].piece, 0, 1, skip, total=10)]
    stage = Decode(store, spec, read_geometry(resolve(spec.model)), block_rows, 2, Deaf(), Sight(store, ()))  # type: ignore[arg-type]
    return stage({"slice": [json.dumps(asdict(each)) for each in slices]})


def make_encoder(head: Head, *, batch_size: int = 4, dtype: str = "float32", spec: JobSpec | None = None) -> Encode:
    return Encode(
        resolve(ModelSpec()),
        Heads((head,), (3,)),
        spec or make_spec({"source": "x", "labels": LABELS, "output": "y"}),
        dtype=dtype,
        batch_size=batch_size,
        n_threads=1,
        reporter=Deaf(),  # type: ignore[arg-type]
    )


def encode(block: pa.Table, head: Head, *, spec: JobSpec | None = None) -> pa.Table:
    return make_encoder(head, spec=spec)(block)


def shard_with_damage(path: Path) -> Path:
    """A shard of ten in which images 2, 3 and 9 are no pictures."""
    with tarfile.open(path, "w") as tar:
        for number in range(10):
            data = b"" if number in (2, 3, 9) else draw(number)
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_borders_of_blocks_depend_on_positions_only(tmp_path: Path) -> None:
    good = decode(str(write_shard(tmp_path / "good.tar", range(10))), tmp_path / "1", block_rows=4)
    bad = decode(str(shard_with_damage(tmp_path / "bad.tar")), tmp_path / "2", block_rows=4)
    assert [block.num_rows for block in good] == [block.num_rows for block in bad] == [4, 4, 2]
    assert [block["id"].to_pylist() for block in good] == [block["id"].to_pylist() for block in bad]
    assert [block.nbytes > 4 * 64 * 64 * 3 for block in bad[:2]] == [True, True]


def test_failed_images_keep_their_place_with_black_pixels(tmp_path: Path) -> None:
    table = pa.concat_tables(decode(str(shard_with_damage(tmp_path / "s.tar")), tmp_path, block_rows=4))
    size = read_geometry(resolve(ModelSpec())).size
    assert table.schema.equals(decoded_schema(*size))
    assert table["key"].to_pylist() == [f"{number}.png" for number in range(10)]
    failed = [number for number, outcome in enumerate(table["outcome"].to_pylist()) if outcome != "ok"]
    assert failed == [2, 3, 9]
    for number, pixels in enumerate(table[PIXELS].to_pylist()):
        assert len(pixels) == size[0] * size[1] * 3
        assert any(pixels) == (number not in failed)
    assert table["width"].to_pylist()[2] is None


def test_a_task_that_begins_again_gives_the_same_rows_from_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(shard_with_damage(tmp_path / "s.tar"))
    first = decode(source, tmp_path / "1", block_rows=4)
    monkeypatch.setattr(stages, "_attempt", lambda: 1)
    # This process would die of the trap.
    monkeypatch.syspath_prepend(str(traps.lay(tmp_path)))
    assert decode(source, tmp_path / "2", block_rows=4) == first
    with tarfile.open(source, "a") as tar:
        entry = tarfile.TarInfo("10.png")
        entry.size = len(data := draw(10) + traps.CRASH)
        tar.addfile(entry, io.BytesIO(data))
    again = decode(source, tmp_path / "3", block_rows=4)
    assert again[:2] == first[:2]
    row = again[2].to_pylist()[2]
    assert not any(row.pop(PIXELS))
    assert row["key"] == "10.png"
    assert (row["outcome"], row["detail"]) == ("decoder_died", "the decoder was killed by signal 11")


def test_the_timer_is_off_when_nothing_is_decoded(tmp_path: Path) -> None:
    blocks = decode_lazily(str(write_shard(tmp_path / "s.tar", range(10))), tmp_path, block_rows=4)
    while next(blocks, None) is not None:
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_only_the_last_row_of_a_shard_tells_its_total(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, n in enumerate((3, 5)):
        write_shard(tmp_path / "in" / f"{number}.tar", range(n))
    (tmp_path / "in" / "loose.png").write_bytes(draw(1))
    table = pa.concat_tables(decode(str(tmp_path / "in"), tmp_path, block_rows=100))
    assert table[SOURCE_TOTAL].to_pylist() == [None, None, 3, None, None, None, None, 5, None]


def test_what_exists_is_skipped_and_ids_stay(tmp_path: Path) -> None:
    source = str(write_shard(tmp_path / "s.tar", range(10)))
    table = pa.concat_tables(decode(source, tmp_path, block_rows=4, skip=((0, 3), (5, 6), (9, 10))))
    assert table["id"].to_pylist() == [3, 4, 6, 7, 8]
    # The last row exists already, in the part that told the total.
    assert table[SOURCE_TOTAL].null_count == 5


def test_encoder_keeps_rows_and_answers_the_good_ones(tmp_path: Path, head: Head) -> None:
    block = pa.concat_tables(decode(str(shard_with_damage(tmp_path / "s.tar")), tmp_path, block_rows=100))
    table = encode(block, head)
    for name in ("id", "uri", "key", "outcome", "detail", "width", "height", SOURCE_TOTAL):
        assert table[name].to_pylist() == block[name].to_pylist()
    for row in table.to_pylist():
        if row["outcome"] == Outcome.OK:
            scores = [each["score"] for each in row["predictions"]]
            assert scores == sorted(scores, reverse=True)
            assert len(scores) == 3
            assert (row["label"], row["score"]) == (row["predictions"][0]["label"], scores[0])
        else:
            assert row["label"] is row["score"] is row["predictions"] is None


def test_scores_do_not_depend_on_the_company(tmp_path: Path, head: Head) -> None:
    (block,) = decode(str(write_shard(tmp_path / "s.tar", range(11))), tmp_path, block_rows=100)
    whole = encode(block, head)
    alone = pa.concat_tables([encode(block.slice(number, 1), head) for number in range(11)])
    assert_same_rows(alone, whole)


def write_pictures(folder: Path, whites: set[int], n: int = 9) -> Path:
    """Grey pictures and white ones."""
    folder.mkdir()
    for number in range(n):
        noise = np.random.default_rng(number).integers(105, 125, (64, 64, 3), np.uint8)
        Image.fromarray(noise + np.uint8(number in whites) * (255 - noise)).save(folder / f"{number}.png")
    return folder


def test_image_that_breaks_the_tower_becomes_a_row(tmp_path: Path, head: Head) -> None:
    """The tower overflows on white, and one picture's NaN reach its neighbours."""
    (greys,) = decode(str(write_pictures(tmp_path / "greys", set())), tmp_path / "1", block_rows=100)
    (mixed,) = decode(str(write_pictures(tmp_path / "mixed", {1, 6})), tmp_path / "2", block_rows=100)
    actor = make_encoder(head, batch_size=4, dtype="float16")
    first = actor._encoder._tower.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        first.weight[0] = 5e4 / first.weight[0].numel()  # white is 2, and float16 ends at 65,504
    first.register_forward_hook(lambda *arguments: arguments[2] + 0 * arguments[2].sum(dim=0, keepdim=True))
    table = actor(mixed)
    assert [row for row, outcome in enumerate(table["outcome"].to_pylist()) if outcome == "not_finite"] == [1, 6]
    keep = [0, 2, 3, 4, 5, 7, 8]
    undisturbed = actor(greys)
    assert set(undisturbed["outcome"].to_pylist()) == {"ok"}
    ours, theirs = table.take(keep)["predictions"].to_pylist(), undisturbed.take(keep)["predictions"].to_pylist()
    for our, their in zip(ours, theirs, strict=True):
        assert our[0]["similarity"] == pytest.approx(their[0]["similarity"], abs=5e-3)  # of float16


def test_memory_that_runs_out_makes_batches_smaller_for_good(tmp_path: Path, head: Head) -> None:
    (block,) = decode(str(write_shard(tmp_path / "s.tar", range(11))), tmp_path, block_rows=100)
    expected = encode(block, head)
    actor = make_encoder(head, batch_size=8)
    encode_images, sizes, room = actor._encoder.encode, [], 3

    def crowded(pixels_BHW3: np.ndarray) -> torch.Tensor:
        sizes.append(len(pixels_BHW3))
        if len(pixels_BHW3) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return encode_images(pixels_BHW3)

    actor._encoder.encode = crowded  # type: ignore[method-assign]
    assert_same_rows(actor(block), expected)
    assert sizes == [6, 3, 3, 3, 2]
    sizes.clear()
    assert_same_rows(actor(block), expected)
    assert max(sizes) == 3
    room = 0
    with pytest.raises(IncompleteError, match="memory for a single image"):
        actor(block)


def test_part_is_one_row_group_and_tells_the_totals(tmp_path: Path, head: Head) -> None:
    from zsic.core.schema import read_metadata

    blocks = decode(str(write_shard(tmp_path / "s.tar", range(10))), tmp_path, block_rows=4)
    table = pa.concat_tables([encode(block, head) for block in blocks])
    file = pq.ParquetFile(io.BytesIO(to_parquet(table, {"fingerprint": "abc"})))
    assert file.metadata.num_row_groups == 1
    group = file.metadata.row_group(0)
    assert {group.column(at).compression for at in range(group.num_columns)} == {"ZSTD"}
    assert read_metadata(file.schema_arrow, "source_totals") == {"0": 10}
    assert read_metadata(file.schema_arrow, "fingerprint") == "abc"
    assert SOURCE_TOTAL not in file.schema_arrow.names
    assert file.read()["predictions"].to_pylist() == table["predictions"].to_pylist()


def test_no_stage_works_where_the_disks_are_others(tmp_path: Path, head: Head) -> None:
    """Decoding would find images missing, and a part would lie where nobody looks."""
    source = str(write_shard(tmp_path / "s.tar", range(4)))
    blocks = [encode(block, head) for block in decode(source, tmp_path, block_rows=4)]
    store = open_store(str(tmp_path / "out"), StoreSpec())
    plan = Output(store).open_plan()
    assert plan is not None
    spec = make_spec({"source": source, "labels": "a,b", "output": f"{tmp_path}/out"})
    elsewhere = Sight(store, (f"{tmp_path}/none.tar",))
    stage = Decode(store, spec, read_geometry(resolve(spec.model)), 4, 1, Deaf(), elsewhere)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"none\.tar"):
        next(stage({"slice": []}), None)
    sink = PartSink(elsewhere, plan, metadata={}, rows_per_part=10, reporter=Deaf())  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"none\.tar"):
        sink.write(blocks, SimpleNamespace(kwargs={"write_uuid": "0123456789abcdef"}, task_idx=0))


def test_a_write_task_that_runs_again_adopts_its_part(tmp_path: Path, head: Head) -> None:
    source = str(write_shard(tmp_path / "s.tar", range(10)))
    blocks = [encode(block, head) for block in decode(source, tmp_path, block_rows=4)]
    store = open_store(str(tmp_path / "out"), StoreSpec())
    plan = Output(store).open_plan()
    assert plan is not None
    sink = PartSink(Sight(store, ()), plan, metadata={}, rows_per_part=10, reporter=Deaf())  # type: ignore[arg-type]

    def write(blocks: list[pa.Table], task: int) -> str:
        return sink.write(blocks, SimpleNamespace(kwargs={"write_uuid": "0123456789abcdef"}, task_idx=task))

    first = write(blocks[:2], 0)
    # The same rows in another order, as a retry may get them: the part stays as it is.
    held = store.read(first)
    assert write(blocks[1::-1], 0) == first
    assert store.read(first) == held
    # Other rows under the name of the first attempt: both stay, and nothing is lost.
    other = write(blocks[2:], 0)
    assert other != first
    assert other.startswith(first.removesuffix(".parquet"))
    assert write(blocks[2:], 0) == other
    assert write([], 1) == ""

    ledger = Output(store).read_ledger(plan)
    assert ledger.all_there
    assert not ledger.n_doubled
    assert sorted(entry.name for entry in ledger.entries) == sorted([first, other])
    assert Output(store).publish(plan, "f").n_rows == 10


def test_embeddings_are_written_plain_and_the_rest_compressed(tmp_path: Path, head: Head) -> None:
    spec = make_spec({"source": "x", "labels": LABELS, "output": {"uri": "y", "embeddings": True}})
    (block,) = decode(str(write_shard(tmp_path / "s.tar", range(6))), tmp_path, block_rows=10)
    file = pq.ParquetFile(io.BytesIO(to_parquet(encode(block, head, spec=spec), {})))
    group = file.metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    plain = columns.pop("embedding")
    assert (plain.compression, plain.has_dictionary_page) == ("UNCOMPRESSED", False)
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert {name for name, column in columns.items() if column.has_dictionary_page} >= {
        "uri",
        "label",
        "predictions.list.element.label",
    }
    assert file.schema_arrow.field("embedding").metadata[b"dtype"] == b"<f2"


def test_large_images_do_not_wait_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = str(write_shard(tmp_path / "s.tar", range(10)))
    expected = decode(shard, tmp_path / "1", block_rows=4)
    n_now, most, prepare = 0, 0, stages.prepare

    def counting(*arguments: object) -> object:
        nonlocal n_now, most
        n_now += 1
        most = max(most, n_now)
        time.sleep(0.01)
        n_now -= 1
        return prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "prepare", counting)
    monkeypatch.setattr(stages, "_WAITING_BYTES", 1)
    blocks = decode(shard, tmp_path / "2", block_rows=4)
    assert most == 1
    assert [block.equals(other) for block, other in zip(blocks, expected, strict=True)] == [True] * 3
    monkeypatch.setattr(stages, "_WAITING_BYTES", 2**30)
    decode(shard, tmp_path / "3", block_rows=4)
    assert most == 2
