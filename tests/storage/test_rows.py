"""Rows of shards that are not what they were when some of their rows were written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import write_shard

from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import JobSpec, make_spec
from zsic.storage.ledger import Runs, merge_runs
from zsic.storage.objects import Objects
from zsic.storage.rows import RawRow, make_rows, read_sources_rows, reread
from zsic.storage.sample import End, Sample, Source
from zsic.storage.sources import list_sources


def spec_of(path: Path) -> JobSpec:
    return make_spec({"source": str(path), "labels": ["a"], "output": "/nowhere"})


def read(path: Path, source: Source, skip: Runs = (), total: int | None = None) -> list[RawRow]:
    spec = spec_of(path)
    return list(read_sources_rows([(0, source)], Objects(spec.store), spec, skip, total))


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, Source]:
    """A shard of ten, and its row of a listing."""
    path = write_shard(tmp_path / "s.tar", range(10))
    spec = spec_of(path)
    (batch,) = list_sources(spec.source, Objects(spec.store))
    return path, Source(**batch.to_pylist()[0])


def test_what_exists_is_left_out_and_the_end_is_told(shard: tuple[Path, Source]) -> None:
    rows = read(*shard, skip=((0, 4), (6, 7)))
    assert [row.id for row in rows] == [4, 5, 7, 8, 9]
    assert [row.source_total for row in rows] == [None, None, None, None, 10]


def test_a_shard_that_has_gone_is_ended_with_the_reason(shard: tuple[Path, Source]) -> None:
    path, source = shard
    path.unlink()
    rows = read(path, source, skip=((0, 4), (6, 8)))
    assert [row.id for row in rows] == [4, 5, 8]
    assert {row.failure.outcome for row in rows if row.failure} == {Outcome.MISSING}
    assert [row.source_total for row in rows] == [None, None, 9]


def test_a_shard_that_has_changed_is_ended_with_the_reason(shard: tuple[Path, Source]) -> None:
    path, source = shard
    write_shard(path, range(3))
    rows = read(path, source, skip=((0, 10),))
    assert [(row.id, row.failure and row.failure.outcome) for row in rows] == [(10, Outcome.CHANGED)]
    assert rows[0].source_total == 11


def test_a_total_that_is_known_binds(shard: tuple[Path, Source]) -> None:
    # It broke off after six at the first attempt, and the row that says so exists.
    rows = read(*shard, skip=((3, 7),), total=7)
    assert [row.id for row in rows] == [0, 1, 2]


@given(
    existing=st.sets(st.integers(0, 15)),
    found=st.integers(1, 16),
    breaks=st.booleans(),
    known=st.none() | st.integers(1, 16),
)
def test_a_source_can_always_be_finished(existing: set[int], found: int, breaks: bool, known: int | None) -> None:
    skip: Runs = ()
    for index in existing:
        skip = merge_runs(skip, ((index, index + 1),))
    if known is not None:
        known = max(known, max(existing, default=0) + 1)

    failure = Failure(Outcome.UNREACHABLE, "x") if breaks else None
    again = reread(skip, known)
    samples = [
        Sample(index, str(index), b"", None) for index in range(found) if index not in existing or index == again
    ]
    rows = list(make_rows(0, Source("s.tar", "tar"), iter([*samples, End(found, failure)]), skip, known))
    indices = [row.id for row in rows]
    assert indices == sorted(set(indices))
    totals = {row.id: row.source_total for row in rows if row.source_total is not None}
    if known is not None:
        assert not existing & set(indices)
        assert existing | set(indices) == set(range(known))
        assert totals in ({}, {known - 1: known})
        return
    # Somebody must carry the total: the last row, which is given again if it exists.
    ((last, total),) = totals.items()
    assert last == total - 1
    assert existing | set(indices) == set(range(total))
    assert existing & set(indices) <= {last}
