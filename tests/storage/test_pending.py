from pathlib import Path

import pyarrow as pa
import pytest
from support.runs import draw, write_shard

from zsic.core.spec import make_spec
from zsic.storage.objects import Objects
from zsic.storage.pending import PendingCount
from zsic.storage.sources import list_sources


def count(source: object, tmp_path: Path) -> tuple[PendingCount, object]:
    spec = make_spec({"source": source, "labels": ["a"], "output": str(tmp_path / "out")})
    objects = Objects(spec.store)
    counted = PendingCount()
    for batch in list_sources(spec.source, objects):
        counted.add(batch)
    return counted, counted.estimate(objects, spec)


def test_loose_images_are_counted(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.jpg").write_bytes(draw(number))
    _, pending = count(str(tmp_path), tmp_path)
    assert (pending.n_images, pending.exact) == (7, True)
    assert pending.n_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.jpg"))


def test_images_in_shards_are_estimated_from_the_first(tmp_path: Path) -> None:
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", range(100 * shard, 100 * shard + 100))
    _, pending = count(f"{tmp_path}/*.tar", tmp_path)
    assert not pending.exact
    assert pending.n_images == pytest.approx(300, rel=0.25)


def test_a_shard_that_cannot_be_read_counts_as_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    _, pending = count(str(tmp_path / "a.tar"), tmp_path)
    assert pending.n_images == 1


def test_nothing_is_no_images() -> None:
    counted = PendingCount()
    counted.add(pa.table({"kind": pa.array([], pa.string()), "size": pa.array([], pa.int64())}))
    spec = make_spec({"source": "x", "labels": ["a"], "output": "y"})
    assert counted.estimate(Objects(spec.store), spec).n_images == 0
