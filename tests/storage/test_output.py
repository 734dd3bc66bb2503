"""The commit protocol, without Ray: what a run begins with, resumes and publishes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from support.place import DISK_AND_S3, DISK_FIRST, open_empty
from support.toy import (
    FIELDS,
    SOURCE,
    Thing,
    World,
    assert_exact,
    begin,
    cut_tasks,
    play,
    read_folder,
    read_published,
    read_slice,
    to_table,
    write_rows,
)

from zsic.core.errors import IncompleteError, MismatchError, SpecError, StoreError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import StoreSpec, UpdateSpec
from zsic.storage import plan as plan_module
from zsic.storage.cleanup import settle
from zsic.storage.lease import Lease
from zsic.storage.output import Output
from zsic.storage.pending import count_pending
from zsic.storage.plan import Plan, read_piece, read_plan, read_sources
from zsic.storage.rows import RawRow
from zsic.storage.slices import cut
from zsic.storage.snapshot import last_snapshot, read_snapshots
from zsic.storage.store import Store, open_store
from zsic.storage.verify import find_differences


def uris(n: int, start: int = 0) -> list[str]:
    return [f"/photos/{number:04d}.jpg" for number in range(start, start + n)]


on_s3_too = pytest.mark.parametrize("store", DISK_AND_S3, indirect=True)
"""For whole runs and a run that dies; `test_crashpoints` breaks every operation on S3."""


@pytest.fixture(params=DISK_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty output store."""
    return open_empty(request, tmp_path)


@pytest.fixture
def world() -> World:
    """Ten images, one of them damaged, and a shard."""
    made = World()
    made.add(uris(9))
    made.add(["/photos/0009.jpg"], corrupt=frozenset({0}))
    made.add(["/photos/s.tar"], kind="tar", n_images=7, corrupt=frozenset({2, 6}))
    return made


def outcome_counts(store: Store) -> dict[str, int]:
    snapshot = last_snapshot(store)
    assert snapshot is not None
    return snapshot.outcomes


def start(output: Output, world: World, **update: bool) -> tuple[Plan, Lease]:
    work = begin(output, world, **update)
    assert work.plan is not None
    assert work.lease is not None
    return work.plan, work.lease


@on_s3_too
def test_images_then_more_images(store: Store, world: World) -> None:
    output = Output(store)
    snapshot = play(output, world)
    assert snapshot is not None
    assert (snapshot.sequence, snapshot.n_rows, snapshot.increment.n_rows) == (1, 17, 17)
    assert snapshot.outcomes == {"corrupt": 3, "ok": 14}
    assert_exact(store, world)
    ids = {row["uri"]: row["id"] for row in read_folder(store)}

    assert play(output, world) is None
    assert begin(output, world).plan is None
    # One sorts before all others: a watermark on names would lose it.
    world.add(["/photos/000.jpg", *uris(3, start=20)])
    snapshot = play(output, world, run="second")
    assert snapshot is not None
    assert (snapshot.n_rows, snapshot.increment.n_rows, snapshot.increment.n_superseded) == (21, 4, 0)
    assert_exact(store, world)
    assert {row["uri"]: row["id"] for row in read_folder(store)} | ids == {
        row["uri"]: row["id"] for row in read_folder(store)
    }
    assert [each.n_rows for each in read_snapshots(store)] == [17, 21]


def test_a_changed_source_replaces_its_rows_and_keeps_its_id(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    ids = {(row["uri"], row["key"]): row["id"] for row in read_folder(store)}
    world.things["/photos/0003.jpg"].version = 2
    world.things["/photos/s.tar"] = Thing("tar", n_images=4, version=2)
    snapshot = play(output, world, run="second")
    assert snapshot is not None
    assert (snapshot.n_rows, snapshot.increment.n_rows, snapshot.increment.n_superseded) == (14, 5, 8)
    assert_exact(store, world)
    now = {(row["uri"], row["key"]): row["id"] for row in read_folder(store)}
    assert now.items() <= ids.items()
    assert play(output, world) is None


def test_superseded_rows_stay_visible_until_the_snapshot_exists(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    before = read_folder(store)
    world.things["/photos/0003.jpg"].version = 2
    plan, lease = start(output, world)
    for number, piece in enumerate(cut_tasks(output, plan)):
        write_rows(output, plan, read_slice(store, world, piece), f"r-{number:06d}")
        assert read_folder(store) == read_published(store) == before
    output.publish(plan, "f")
    lease.end()
    assert_exact(store, world)


def test_what_was_out_of_reach_is_taken_up_again_five_times(store: Store, world: World) -> None:
    output = Output(store)
    world.add(["/photos/far.jpg"], broken_at=0)
    world.add(["/photos/far.tar"], kind="tar", n_images=9, broken_at=5, corrupt=frozenset({1}))
    snapshot = play(output, world)
    assert snapshot is not None
    assert snapshot.outcomes == {"corrupt": 4, "ok": 18, "unreachable": 2}
    ids = {(row["uri"], row["key"]): row["id"] for row in read_folder(store)}
    for attempt in range(5):
        snapshot = play(output, world, run=f"attempt-{attempt}")
        assert snapshot is not None
        # The last row before the break is done again as well: it may be the last of all.
        assert (snapshot.n_rows, snapshot.increment.n_rows, snapshot.increment.n_superseded) == (24, 3, 3)
        assert_exact(store, world)
    assert play(output, world) is None
    # Who asks for it gets another try, and then the five of the machine.
    world.things["/photos/far.tar"].broken_at = 7
    snapshot = play(output, world, run="asked", retry_failed=True)
    assert snapshot is not None
    assert_exact(store, world)
    world.things["/photos/far.tar"].broken_at = world.things["/photos/far.jpg"].broken_at = None
    snapshot = play(output, world, run="asked-again", retry_failed=True)
    assert snapshot is not None
    # Of the shard, only what failed was done again, two that were out of reach and one that is damaged for good; and
    # the last row before the break.
    assert snapshot.increment.n_rows == 1 + (3 + 1) + 1 + 2
    assert_exact(store, world)
    now = {(row["uri"], row["key"]): row["id"] for row in read_folder(store)}
    assert all(now[name] == each for name, each in ids.items() if name in now)


def test_failed_rows_are_taken_up_when_asked_for(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    assert play(output, world) is None
    # A better decoder, say.
    world.things["/photos/0009.jpg"].corrupt = frozenset()
    world.things["/photos/s.tar"].corrupt = frozenset({2})
    snapshot = play(output, world, run="second", retry_failed=True)
    assert snapshot is not None
    assert (snapshot.n_rows, snapshot.increment.n_rows, snapshot.increment.n_superseded) == (17, 3, 3)
    assert_exact(store, world)


def test_gone_sources_keep_their_rows_unless_pruned(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    gone = {uri: world.things.pop(uri) for uri in ("/photos/0001.jpg", "/photos/s.tar")}
    assert play(output, world) is None
    assert len(read_folder(store)) == 17
    snapshot = play(output, world, run="pruning", prune=True)
    assert snapshot is not None
    assert (snapshot.n_rows, snapshot.increment.n_rows, snapshot.increment.n_superseded) == (9, 0, 8)
    assert_exact(store, world)
    assert play(output, world, prune=True) is None
    # What comes back is new.
    world.things |= gone
    assert play(output, world, run="back", prune=True) is not None
    assert_exact(store, world)


def test_pruning_touches_only_what_the_source_covers(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)

    class Elsewhere(World):
        def covers(self, uri: str) -> bool:
            return uri.startswith("/elsewhere/")

    other = Elsewhere()
    other.add(["/elsewhere/1.jpg"])
    snapshot = play(output, other, run="second", prune=True)
    assert snapshot is not None
    assert snapshot.n_rows == 18


def test_an_image_that_a_manifest_names_twice_later_is_two_sources(store: Store) -> None:
    output = Output(store)

    class Twice(World):
        n_times = 1

        def __iter__(self) -> Iterator[pa.RecordBatch]:
            for batch in super().__iter__():
                for _ in range(self.n_times):
                    yield batch

    world = Twice()
    world.add(uris(2))
    play(output, world)
    world.n_times = 3
    snapshot = play(output, world, run="second")
    assert snapshot is not None
    assert snapshot.n_rows == 6
    assert play(output, world) is None
    world.n_times = 2
    assert play(output, world) is None
    snapshot = play(output, world, run="third", prune=True)
    assert snapshot is not None
    assert snapshot.n_rows == 4
    assert list(find_differences(store)) == []


def test_an_open_plan_is_resumed_and_its_source_not_listed(store: Store, world: World) -> None:
    output = Output(store)
    plan, lease = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows[:2] + rows[11:13], "killed-000000")
    lease.end()
    n_listings = world.n_listings
    world.add(uris(1, start=50))  # comes too late for the open plan

    with pytest.raises(SpecError, match=r"not finished.*source\.uris: this run \['/else'\], the output \['/photos'\]"):
        output.begin(world, FIELDS, {"uris": ["/else"]})
    work = begin(output, world)
    assert work.resumed
    assert work.plan == plan
    assert world.n_listings == n_listings
    assert work.lease is not None
    work.lease.end()
    left = [row.id for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    assert sorted(left) == sorted({row.id for row in rows} - {row.id for row in rows[:2] + rows[11:13]})
    snapshot = play(output, world, run="resumed")
    assert snapshot is not None
    assert snapshot.n_rows == 17
    assert play(output, world, run="late") is not None
    assert_exact(store, world)


def test_a_run_that_finds_nothing_leaves_no_trace(tmp_path: Path) -> None:
    output = Output(open_store(str(tmp_path / "out"), StoreSpec()))
    assert begin(output, World()).plan is None
    assert not (tmp_path / "out").exists()


def test_rows_that_are_missing_are_not_published(store: Store, world: World) -> None:
    output = Output(store)
    plan, _ = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows[:-1], "a-000000")
    with pytest.raises(IncompleteError, match="1 of 11 sources are not whole"):
        output.publish(plan, "f")
    write_rows(output, plan, rows[-1:], "a-000001")
    assert output.publish(plan, "f").n_rows == 17


def test_rows_that_exist_twice_are_published_once(store: Store, world: World) -> None:
    output = Output(store)
    plan, lease = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows[:9], "a-000000")
    write_rows(output, plan, rows[4:14], "b-000000")  # half of it is new
    write_rows(output, plan, rows[3:6], "c-000000")  # nothing is
    write_rows(output, plan, rows[12:], "d-000000")
    lease.end()
    assert output.read_ledger(plan).n_doubled == 10
    output.publish(plan, "f")
    assert_exact(store, world)


def test_a_task_that_is_tried_again_finds_its_part(store: Store, world: World) -> None:
    output = Output(store)
    plan, _ = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    first = write_rows(output, plan, rows[:4], "t-000000")
    assert write_rows(output, plan, rows[:4], "t-000000") == first
    # Other rows under the name of the same task: both stay.
    second = write_rows(output, plan, rows[4:], "t-000000")
    assert second is not None
    assert second != first
    assert write_rows(output, plan, rows[4:], "t-000000") == second
    assert output.publish(plan, "f").n_rows == 17


@pytest.mark.parametrize("supersedes", [False, True])
def test_a_writer_that_comes_too_late_takes_its_part_back(store: Store, world: World, supersedes: bool) -> None:
    output = Output(store)
    if supersedes:
        play(output, world)
        world.things["/photos/0003.jpg"].version = 2
    plan, lease = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows, "a-000000")
    output.publish(plan, "f")
    lease.end()
    write_rows(output, plan, rows, "zombie-000000")
    assert_exact(store, world)
    # One that died before it could take it back: whoever comes by next cleans up.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Output, "_take_back", lambda *_: None)
        write_rows(output, plan, rows, "zombie-000001")
    assert any("left from an interrupted clean-up" in line for line in find_differences(store))
    settle(store)
    assert_exact(store, world)


def test_who_publishes_second_gets_the_first_snapshot(store: Store, world: World) -> None:
    first, second = Output(store), Output(store)
    plan, _ = start(first, world)
    rows = [row for piece in cut_tasks(first, plan) for row in read_slice(store, world, piece)]
    write_rows(first, plan, rows, "a-000000")
    ledger = second.read_ledger(plan)
    write_rows(second, plan, rows[:3], "b-000000")
    published = first.publish(plan, "f")
    assert second.publish(plan, "f", ledger) == published
    assert second.publish(plan, "f") == published
    assert_exact(store, world)


def test_an_interrupted_clean_up_is_finished_by_the_next_run(tmp_path: Path, world: World) -> None:
    store = open_store(str(tmp_path / "out"), StoreSpec())
    output = Output(store)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    plan, lease = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows, "a-000000")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("zsic.storage.output.settle", lambda *_: None)
        output.publish(plan, "f")
    lease.end()
    # The snapshot is exact at once; the folder will be.
    assert {(row["uri"], row["label"]) for row in read_published(store)} >= {("/photos/0003.jpg", "version 2")}
    assert len(read_published(store)) == 17
    assert any("clean-up" in line for line in find_differences(store))
    assert play(output, world) is None
    assert_exact(store, world)


def test_another_job_is_refused_with_what_differs(store: Store) -> None:
    Output(store).claim(FIELDS)
    other = {"model": {"digest": "m"}, "scoring": {"top_k": 3}}
    with pytest.raises(MismatchError, match=r"scoring.top_k: this run 3, the output 5"):
        Output(store).claim(other)
    assert Output(store).claim(FIELDS)


def test_foreign_parquet_in_the_open_plan_is_explained(store: Store, world: World) -> None:
    output = Output(store)
    plan, _ = start(output, world)
    store.create(f"{plan.tag}x.parquet", b"not parquet at all")
    with pytest.raises(StoreError, match="not published yet: delete it and run again"):
        output.read_ledger(plan)
    assert any("is damaged" in line for line in find_differences(store))


def test_nobody_elses_files_are_touched(store: Store, world: World) -> None:
    store.create("my-own.parquet", b"PAR1")
    store.create("notes.txt", b"mine")
    output = Output(store)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    play(output, world, run="second")
    assert store.read("my-own.parquet") == b"PAR1"
    assert store.read("notes.txt") == b"mine"
    assert list(find_differences(store)) == ["my-own.parquet: belongs to no snapshot"]


def test_every_damage_is_found(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    play(output, world, run="second")
    snapshot = last_snapshot(store)
    assert snapshot is not None
    assert list(find_differences(store)) == []
    for part in snapshot.parts:
        held = store.read(part.name)
        assert held is not None
        store.delete(part.name)
        assert list(find_differences(store)) == [f"{part.name}: is missing ({part.n_rows} rows)"]
        store.create(part.name, held[:-1] + bytes([held[-1] ^ 1]))
        told = list(find_differences(store))
        assert any(f"{part.name}: its content has changed" in line for line in told)
        assert not any("delete" in line for line in told)
        store.delete(part.name)
        store.create(part.name, held)
    assert list(find_differences(store)) == []
    store.create("part-99999-stranger.parquet", b"PAR1")
    assert list(find_differences(store)) == ["part-99999-stranger.parquet: belongs to no snapshot"]
    store.delete("part-99999-stranger.parquet")
    store.delete("_zsic/plan/00000002.json")
    assert list(find_differences(store)) == ["snapshot 2: its plan is gone or is another one"]


def test_a_plan_over_several_pieces_streams_and_slices(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "PIECE_ROWS", 25)
    monkeypatch.setattr(plan_module, "GROUP_ROWS", 10)
    store = open_store(str(tmp_path_factory.mktemp("out")), StoreSpec())
    output = Output(store)
    world = World()
    world.add(uris(60))
    world.add(["/photos/a.tar"], kind="tar", n_images=1_000)
    world.add(["/photos/b.tar"], kind="tar", n_images=500)
    plan, lease = start(output, world)
    lease.end()
    assert [piece.n_sources for piece in plan.pieces] == [25, 25, 12]
    rows = read_sources(store, plan.pieces[1].name, 8, 13).to_pylist()
    assert [row["ordinal"] for row in rows] == [33, 34, 35, 36, 37]
    assert rows[0]["uri"] == "/photos/0033.jpg"

    made = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    ids = {*(number << 24 for number in range(5, 30)), (60 << 24) + 1}
    output.write_part(plan, to_table([row for row in made if row.id in ids]), {}, "a-000000")
    ledger = output.read_ledger(plan)
    slices = cut(store, plan, ledger, images_per_slice=8)
    covered = [
        (number, position)
        for number, piece in enumerate(plan.pieces)
        for each in slices
        if each.piece == piece.name
        for position in range(each.start, each.stop)
    ]
    assert sorted(covered) == [(number // 25, number % 25) for number in [*range(5), *range(30, 62)]]
    assert all(each.stop - each.start <= 8 for each in slices)
    assert [each.skip for each in slices if each.skip] == [((1, 2),)]
    counted = count_pending(store, plan, ledger)
    assert (counted.n_loose, counted.n_loose_bytes) == (35, 35_000)
    assert (counted.n_shards, counted.n_shard_bytes) == (2, 1_500_000)
    assert counted.first_shard is not None
    assert counted.first_shard.uri == "/photos/a.tar"

    output.write_part(plan, to_table([row for row in made if row.id >> 24 < 5]), {}, "a-000001")
    ledger = output.read_ledger(plan)
    assert count_pending(store, plan, ledger).n_loose == 30  # of the first piece nothing is left
    assert plan.pieces[0].name not in {each.piece for each in cut(store, plan, ledger, images_per_slice=8)}

    play(output, world, rows_per_part=100)
    for uri in (*uris(60)[::2], "/photos/b.tar"):
        world.things[uri].version = 2
    plan, lease = start(output, world)
    lease.end()
    assert [piece.n_sources for piece in plan.redone] == [25, 6]
    assert plan.added == ()
    assert read_piece(store, plan.redone[1])["ordinal"].to_pylist() == [50, 52, 54, 56, 58, 61]
    play(output, world, run="second", rows_per_part=100)
    assert_exact(store, world)


def test_plans_by_themselves_do_not_make_an_update(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    world.things.pop("/photos/0004.jpg")
    world.add(uris(1, start=70))
    work = output.begin(world, FIELDS, SOURCE, UpdateSpec(prune=True))
    assert work.plan is not None
    assert (work.plan.n_added, work.plan.n_redone, work.plan.n_dropped) == (1, 1, 1)
    assert read_plan(store, 2) == work.plan
    assert outcome_counts(store) == {"corrupt": 3, "ok": 14}


def test_what_was_missing_is_tried_again_when_it_is_listed_again(store: Store, world: World) -> None:
    output = Output(store)
    plan, lease = start(output, world)
    away = {uri: world.things.pop(uri) for uri in ("/photos/0002.jpg", "/photos/s.tar")}
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows, "a-000000")
    output.publish(plan, "f")
    lease.end()
    assert outcome_counts(store)["missing"] == 2
    assert play(output, world) is None  # not listed, so not tried
    world.things |= away  # restored, with the ETag it had
    assert play(output, world, run="second") is not None
    assert_exact(store, world)


class Manifest(World):
    """A listing that knows names alone."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in super().__iter__():
            nothing = [None] * batch.num_rows
            columns = {name: batch[name] for name in batch.schema.names}
            yield pa.RecordBatch.from_pydict(
                columns | {"size": nothing, "etag": nothing, "mtime_ns": nothing}, batch.schema
            )


def test_what_a_manifest_names_in_vain_is_not_tried_again(store: Store) -> None:
    world = Manifest()
    world.add(uris(2))
    output = Output(store)
    plan, lease = start(output, world)
    world.things.clear()
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows, "a-000000")
    output.publish(plan, "f")
    lease.end()
    world.add(uris(2))
    assert outcome_counts(store) == {"missing": 2}
    assert begin(output, world).plan is None


def test_what_a_manifest_names_is_tried_again_where_it_was_out_of_reach(store: Store) -> None:
    world = Manifest()
    world.add(uris(2))
    output = Output(store)
    plan, lease = start(output, world)
    out_of_reach = Failure(Outcome.UNREACHABLE, "no answer")
    rows = [RawRow(number << 24, uri, None, None, out_of_reach, None) for number, uri in enumerate(uris(2))]
    write_rows(output, plan, rows, "a-000000")
    output.publish(plan, "f")
    lease.end()
    assert outcome_counts(store) == {"unreachable": 2}
    assert start(output, world)[0].n_redone == 2


def test_a_total_that_no_part_tells_stays_while_other_sources_change(store: Store, world: World) -> None:
    output = Output(store)
    plan, lease = start(output, world)
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    # The end behind the last row of the shard was met by a second reading alone, which gave that row once more.
    write_rows(output, plan, [*rows[:-1], replace(rows[-1], source_total=None)], "a-000000")
    write_rows(output, plan, rows[-1:], "b-000000")
    output.publish(plan, "f")
    lease.end()
    world.add(["/photos/t.jpg"])
    play(output, world, run="second")
    # Sources before and behind the shard, then only before it.
    for changed in (("/photos/0003.jpg", "/photos/t.jpg"), ("/photos/0004.jpg",)):
        for uri in changed:
            world.things[uri].version += 1
        snapshot = play(output, world, run=f"changed-{len(changed)}")
        assert snapshot is not None
        assert snapshot.totals == {"10": 7}
        assert_exact(store, world)
    world.things["/photos/s.tar"] = Thing("tar", n_images=4, version=2)
    snapshot = play(output, world, run="shard")
    assert snapshot is not None
    assert snapshot.totals == {}
    assert_exact(store, world)


def test_a_comparison_counts_what_it_found(store: Store, world: World) -> None:
    output = Output(store)
    world.add(["/photos/far.jpg"], broken_at=0)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    for uri in ("/photos/0004.jpg", "/photos/0005.jpg"):
        del world.things[uri]
    world.add(uris(4, start=70))
    changes = output.compare(world, UpdateSpec(prune=True))
    assert [change.dropped.num_rows for change in changes][-1] == 2
    assert (changes.n_listed, changes.n_added, changes.n_changed) == (14, 4, 1)
    assert (changes.n_retried, changes.n_dropped) == (1, 2)


@on_s3_too
def test_a_commit_that_died_before_its_snapshot_is_done_again(store: Store, world: World) -> None:
    output = Output(store)
    play(output, world)
    world.things["/photos/0003.jpg"].version = 2
    plan, lease = start(output, world)
    lease.end()
    rows = [row for piece in cut_tasks(output, plan) for row in read_slice(store, world, piece)]
    write_rows(output, plan, rows, "a-000000")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(store), "create", _dying_at("_zsic/snapshot/", type(store).create))
        with pytest.raises(StoreError, match="died"):
            output.publish(plan, "f")
    assert any("again-" in name for name, _ in store.list("_zsic/staged"))
    play(output, world, run="second")
    assert_exact(store, world)


def _dying_at(prefix: str, create: Callable[[Store, str, bytes], bool]) -> Callable[[Store, str, bytes], bool]:
    def dying(store: Store, name: str, data: bytes) -> bool:
        if name.startswith(prefix):
            raise StoreError("died")
        return create(store, name, data)

    return dying
