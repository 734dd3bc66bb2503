"""The commit protocol, without Ray: plan, parts, ledger, snapshot, verify."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import IncompleteError, MismatchError, SpecError, StoreError
from zsic.core.schema import output_schema, with_metadata
from zsic.core.spec import StoreSpec
from zsic.storage import plan as plan_module
from zsic.storage.ledger import Ledger, merge_runs
from zsic.storage.output import Output
from zsic.storage.part import PartFacts
from zsic.storage.pending import count_pending
from zsic.storage.plan import SOURCE_COLUMNS, Plan, read_sources
from zsic.storage.slices import cut
from zsic.storage.snapshot import last_snapshot, read_snapshots
from zsic.storage.verify import find_differences
from zsic.storage.store import Store, open_store

FIELDS = {"model": {"digest": "m"}, "scoring": {"top_k": 5}}


def listing(*sources: tuple[str, str, int], etag: str = "e") -> list[pa.RecordBatch]:
    rows = [
        {"uri": uri, "kind": kind, "size": size, "etag": etag, "mtime_ns": 1, "columns": None}
        for uri, kind, size in sources
    ]
    return [pa.RecordBatch.from_pylist(rows, schema=pa.schema(SOURCE_COLUMNS))]


def images(n: int, start: int = 0) -> list[tuple[str, str, int]]:
    return [(f"/photos/{number:04d}.jpg", "image", 1000) for number in range(start, start + n)]


def write_part(store: Store, plan: Plan, name: str, ids: list[int], totals: dict[int, int] | None = None) -> str:
    """A part as the sink writes it, with empty predictions."""
    import io

    schema = with_metadata(
        output_schema(), {"source_totals": {str(key): value for key, value in (totals or {}).items()}}
    )
    rows = [{"id": each, "uri": f"u{each}", "outcome": "ok" if each % 7 else "corrupt"} for each in ids]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    full = f"{plan.tag}{name}.parquet"
    assert store.create(full, buffer.getvalue())
    return full


SOURCE = {"uris": ["/photos"]}


def new_plan(output: Output, sources: Iterable[pa.RecordBatch]) -> Plan:
    increment = output.next_plan(sources, FIELDS, SOURCE)
    assert increment.plan is not None
    assert not increment.resumed
    return increment.plan


def test_images_then_more_images(store: Store) -> None:
    output = Output(store)
    fingerprint = output.claim(FIELDS)
    plan = new_plan(output, listing(*images(10)))
    assert (plan.n_sources, plan.n_bytes, plan.first_ordinal) == (10, 10_000, 0)
    write_part(store, plan, "a", [number << 24 for number in range(10)])
    snapshot = output.publish(plan, fingerprint)
    assert (snapshot.n_rows, snapshot.n_sources, sum(snapshot.outcomes.values())) == (10, 10, 10)
    assert list(find_differences(store)) == []

    unchanged = output.next_plan(listing(*images(10)), FIELDS, SOURCE)
    assert (unchanged.plan, unchanged.n_changed) == (None, 0)
    grown = new_plan(output, listing(*images(13)))
    assert (grown.n_sources, grown.first_ordinal, grown.sequence) == (3, 10, 2)
    write_part(store, grown, "b", [number << 24 for number in range(10, 13)])
    assert output.publish(grown, fingerprint).parent is not None
    assert [each.n_rows for each in read_snapshots(store)] == [10, 3]
    assert list(find_differences(store)) == []


def test_open_plan_is_resumed_and_its_source_not_listed(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(5)))

    def must_not_be_read() -> Iterator[pa.RecordBatch]:
        raise AssertionError("the source was listed")
        yield

    increment = output.next_plan(must_not_be_read(), FIELDS, SOURCE)
    assert increment.resumed
    assert increment.plan == plan
    with pytest.raises(SpecError, match=r"not finished.*source\.uris: this run \['/else'\], the output \['/photos'\]"):
        output.next_plan(must_not_be_read(), FIELDS, {"uris": ["/else"]})


def test_a_run_that_finds_nothing_does_not_own_the_output(store: Store) -> None:
    output = Output(store)
    assert output.next_plan([], FIELDS, SOURCE).plan is None
    assert output.read_job() is None
    new_plan(output, listing(*images(1)))
    assert output.read_job() == FIELDS


def test_shard_is_done_when_its_total_is_known_and_all_ids_exist(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(("/s.tar", "tar", 9000), *images(1)))
    write_part(store, plan, "a", [0, 1, 2, 1 << 24])
    ledger = output.read_ledger(plan)
    assert (ledger.n_sources_done, ledger.whole) == (1, False)
    assert list(ledger.pending(0, 2)) == [(0, ((0, 3),), None)]
    with pytest.raises(IncompleteError, match="1 of 2 sources"):
        output.publish(plan, "f")

    write_part(store, plan, "b", [4], {0: 5})
    assert list(output.read_ledger(plan).pending(0, 2)) == [(0, ((0, 3), (4, 5)), 5)]
    write_part(store, plan, "c", [3])
    assert output.read_ledger(plan).whole
    assert output.publish(plan, "f").n_rows == 6


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_longer_of_two_totals_holds(store: Store, names: tuple[str, str]) -> None:
    output = Output(store)
    plan = new_plan(output, listing(("/s.tar", "tar", 9000)))
    # At first the shard broke off after two images, and the part with its first row was lost in a crash.
    write_part(store, plan, names[0], [1, 2], {0: 3})
    # The next attempt read it to its end.
    write_part(store, plan, names[1], [0, 3, 4], {0: 5})
    assert output.read_ledger(plan).whole
    assert output.publish(plan, "f").n_rows == 5


def test_doubled_rows_are_not_published(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(("/s.tar", "tar", 9000), *images(1)))
    write_part(store, plan, "a", [0, 1, 1 << 24], {0: 2})
    extra = write_part(store, plan, "b", [1, 1 << 24])
    assert output.read_ledger(plan).n_doubled == 2
    assert output.read_ledger(plan).all_there
    with pytest.raises(IncompleteError, match=f"2 rows of .* exist twice.*delete {extra} and run again"):
        output.publish(plan, "f")
    store.delete(extra)
    assert output.publish(plan, "f").n_rows == 3


@given(
    parts=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6),
    total=st.integers(1, 31),
)
def test_ledger_agrees_with_sets(parts: list[list[int]], total: int) -> None:
    from zsic.storage.ledger import PartFacts

    plan = Plan(1, (plan_module.Piece("p", 3, 1),), 1, 0, {}, "d" * 64)
    ledger = Ledger(plan)
    seen: set[int] = set()
    n_all = 0
    for number, part in enumerate(parts):
        kept = [index for index in part if index < total]
        totals = {3: total} if total - 1 in kept else {}
        ids_N = np.array([(3 << 24) + index for index in kept], np.int64)
        ledger.add(PartFacts(str(number), 1, ids_N, totals, {"ok": len(kept)}))
        seen |= set(kept)
        n_all += len(kept)
    assert ledger.n_rows == n_all
    assert ledger.n_doubled == n_all - len(seen)
    assert (ledger.n_sources_done == 1) == (seen == set(range(total)))
    left = list(ledger.pending(0, 1))
    if ledger.n_sources_done:
        assert left == []
    else:
        ((position, runs, known),) = left
        assert (position, known) == (0, total if total - 1 in seen else None)
        assert {index for start, stop in runs for index in range(start, stop)} == seen


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=8))
def test_merged_runs_are_a_union(spans: list[tuple[int, int]]) -> None:
    wanted: set[int] = set()
    merged: tuple[tuple[int, int], ...] = ()
    for start, length in spans:
        wanted |= set(range(start, start + length))
        merged = merge_runs(merged, ((start, start + length),))
    assert {index for start, stop in merged for index in range(start, stop)} == wanted
    assert all(left[1] < right[0] for left, right in itertools.pairwise(merged))


def test_another_job_is_refused_with_what_differs(store: Store) -> None:
    Output(store).claim(FIELDS)
    other = {"model": {"digest": "m"}, "scoring": {"top_k": 3}}
    with pytest.raises(MismatchError, match=r"scoring.top_k: this run 3, the output 5"):
        Output(store).claim(other)
    assert Output(store).claim(FIELDS)


def test_changed_source_keeps_its_row_and_is_counted(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(3)))
    write_part(store, plan, "a", [number << 24 for number in range(3)])
    output.publish(plan, "f")
    new = output.split_new(listing(*images(3), etag="changed"))
    assert [batch.num_rows for batch in new] == []
    assert (new.n_listed, new.n_changed) == (3, 3)


def test_every_damage_is_found(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(6)))
    first = write_part(store, plan, "a", [number << 24 for number in range(3)])
    second = write_part(store, plan, "b", [number << 24 for number in range(3, 6)])
    output.publish(plan, "f")
    held = store.read(second)
    assert held is not None

    store.create("part-99999-stranger.parquet", b"PAR1")
    assert any("belongs to no snapshot" in line for line in find_differences(store))
    store.delete("part-99999-stranger.parquet")

    store.delete(second)
    assert list(find_differences(store)) == [f"{second}: is missing (3 rows)"]
    store.create(second, held[:-1] + bytes([held[-1] ^ 1]))
    assert any(f"{second}: its content has changed" in line for line in find_differences(store))
    store.delete(second)
    store.create(second, held)
    assert list(find_differences(store)) == []
    store.delete(first)
    assert list(find_differences(store)) == [f"{first}: is missing (3 rows)"]


def test_foreign_parquet_in_the_open_plan_is_explained(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(1)))
    store.create(f"{plan.tag}x.parquet", b"not parquet at all")
    with pytest.raises(StoreError, match="not published yet: delete it and run again"):
        output.read_ledger(plan)
    assert any("is damaged" in line for line in find_differences(store))


def test_damage_to_a_published_part_is_a_difference_and_no_advice_to_delete_it(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(2)))
    name = write_part(store, plan, "a", [0, 1 << 24])
    output.publish(plan, "f")
    store.delete(name)
    store.create(name, b"no longer parquet")
    told = list(find_differences(store))
    assert any("is damaged" in line for line in told)
    assert not any("delete" in line for line in told)


@pytest.mark.parametrize(
    ("ids", "totals"), [([5 << 24], None), ([(0 << 24) + 1], None), ([0], {7: 1})], ids=["id", "index", "total"]
)
def test_a_part_that_does_not_fit_the_plan_is_refused(
    store: Store, ids: list[int], totals: dict[int, int] | None
) -> None:
    output = Output(store)
    plan = new_plan(output, listing(*images(2)))
    write_part(store, plan, "a", ids, totals)
    with pytest.raises(StoreError, match="move it away"):
        output.read_ledger(plan)


def test_no_gap_is_taken_for_the_end(store: Store) -> None:
    output = Output(store)
    plan = new_plan(output, listing(("/s.tar", "tar", 9000)))
    write_part(store, plan, "a", [*range(8)], {0: 8})  # broke off there, once
    write_part(store, plan, "b", [*range(10, 20)], {0: 20})
    ledger = output.read_ledger(plan)
    assert not ledger.all_there
    assert list(ledger.pending(0, 1)) == [(0, ((0, 8), (10, 20)), 20)]


def test_plan_over_several_pieces_streams_and_slices(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "PIECE_ROWS", 25)
    monkeypatch.setattr(plan_module, "GROUP_ROWS", 10)
    store = open_store(str(tmp_path_factory.mktemp("out")), StoreSpec())
    output = Output(store)
    batches = [batch for start in range(0, 60, 7) for batch in listing(*images(min(7, 60 - start), start))]
    plan = new_plan(output, [*batches, *listing(("/a.tar", "tar", 1_000_000), ("/b.tar", "tar", 500_000))])
    assert [piece.n_sources for piece in plan.pieces] == [25, 25, 12]
    rows = read_sources(store, plan.pieces[1].name, 8, 13).to_pylist()
    assert [row["ordinal"] for row in rows] == [33, 34, 35, 36, 37]
    assert rows[0]["uri"] == "/photos/0033.jpg"

    write_part(store, plan, "a", [*(number << 24 for number in range(5, 30)), (60 << 24) + 1])
    ledger = output.read_ledger(plan)
    slices = cut(store, ledger, images_per_slice=8)
    covered = [
        (piece_number, position)
        for piece_number, piece in enumerate(plan.pieces)
        for each in slices
        if each.piece == piece.name
        for position in range(each.start, each.stop)
    ]
    wanted = [(number // 25, number % 25) for number in [*range(5), *range(30, 62)]]
    assert sorted(covered) == wanted
    assert all(each.stop - each.start <= 8 for each in slices)
    assert [each.skip for each in slices if each.skip] == [((1, 2),)]
    counted = count_pending(store, ledger)
    assert (counted.n_loose, counted.n_loose_bytes) == (35, 35_000)
    assert (counted.n_shards, counted.n_shard_bytes) == (2, 1_500_000)
    assert counted.first_shard is not None
    assert counted.first_shard.uri == "/a.tar"
