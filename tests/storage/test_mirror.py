"""The Delta table over an output is its last snapshot: at any moment, after any death, whoever came first."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support import TESTS
from support.crashpoints import (
    ACTS,
    STORIES,
    Act,
    Breaking,
    BreakingMirror,
    Hours,
    break_and_mend,
    change_world,
    make_world,
)
from support.faultproxy import FaultProxy, Rule
from support.toy import (
    COLUMNS,
    FIELDS,
    World,
    assert_exact,
    begin,
    cut_tasks,
    play,
    read_published,
    read_slice,
    to_table,
)

from zsic.core.embedding import embedding_field
from zsic.core.errors import SpecError, StoreError
from zsic.core.spec import StoreSpec
from zsic.storage import delta
from zsic.storage.cleanup import settle
from zsic.storage.delta import location, storage_options
from zsic.storage.mirror import Mirror
from zsic.storage.output import Output
from zsic.storage.snapshot import Snapshot, last_snapshot, read_snapshot
from zsic.storage.store import Store, open_store

Wire = Literal["lose", "unavailable", "reset", "truncate"]
WIRE_ACTS: tuple[Wire, ...] = ("lose", "unavailable", "reset", "truncate")


@dataclass
class Lake:
    """An output with a Delta table over it."""

    store: Store
    spec: StoreSpec

    def mirror(self, *, wanted: bool = True) -> Mirror:
        return Mirror(self.store, self.spec, wanted=wanted)

    def output(self, *, wanted: bool = True) -> Output:
        return Output(self.store, self.mirror(wanted=wanted), clock=Hours())

    def table(self) -> DeltaTable:
        options = storage_options(self.store.uri, self.spec)
        return DeltaTable(location(self.store.uri), storage_options=options)

    def files(self) -> set[str]:
        return set(self.table().get_add_actions().column("path").to_pylist())

    def rows(self) -> list[dict[str, object]]:
        """The table as deltalake reads it."""
        rows = self.table().to_pyarrow_table(columns=COLUMNS).to_pylist()
        return sorted(rows, key=lambda row: str(row["id"]).zfill(20))

    def assert_is_snapshot(self) -> None:
        """Whoever reads by the log reads what is published."""
        snapshot = last_snapshot(self.store)
        assert snapshot is not None
        assert self.files() == {part.name for part in snapshot.parts}
        assert self.rows() == read_published(self.store)
        assert list(self.mirror().find_differences(snapshot)) == []


def open_lake(uri: str, **fields: object) -> Lake:
    spec = StoreSpec(attempts=3, timeout_s=10, **fields)  # type: ignore[arg-type]
    return Lake(open_store(uri, spec), spec)


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.variant)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """On disk and on an S3 server, under a name that URLs would spell otherwise."""
    if request.param == "disk":
        return open_lake(str(tmp_path / "my out é"))
    endpoint, bucket = request.getfixturevalue("s3_bucket")
    return open_lake(f"s3://{bucket}/some/my out é", s3_endpoint_url=endpoint)


@pytest.mark.parametrize(
    ("lake", "n_nights"), [("disk", 3), ("s3", 2), pytest.param("s3", 3, marks=pytest.mark.variant)], indirect=["lake"]
)
def test_the_table_follows_every_snapshot_in_one_commit(lake: Lake, n_nights: int) -> None:
    world = make_world()
    for night in range(n_nights):
        assert play(lake.output(), world, run=f"night-{night}", prune=True) is not None
        lake.assert_is_snapshot()
        assert_exact(lake.store, world)
        table = lake.table()
        assert table.version() == night
        log = lake.store.read(f"_delta_log/{night:020d}.json") or b""
        assert f'"userMetadata":"zsic snapshot {night + 1}"'.encode() in log
        change_world(world)
    ids = sorted(table.get_add_actions(flatten=True).column("min.id").to_pylist())
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None
    assert ids == sorted(part.first_id for part in snapshot.parts)
    assert table.count() == snapshot.n_rows


def test_publishing_again_or_late_changes_nothing(lake: Lake) -> None:
    world = make_world()
    play(lake.output(), world)
    settle(lake.store, lake.mirror())
    assert lake.table().version() == 0
    change_world(world)
    play(lake.output(), world, run="second", prune=True)
    first = read_snapshot(lake.store, 1)
    assert first is not None
    lake.mirror().follow(first)
    assert lake.table().version() == 1
    lake.assert_is_snapshot()


def test_an_output_that_has_a_history_is_published_whole(lake: Lake) -> None:
    world = make_world()
    play(Output(lake.store, clock=Hours()), world)
    change_world(world)
    play(Output(lake.store, clock=Hours()), world, run="second")
    play(lake.output(), world, run="third")  # tries again what is out of reach, or finds nothing to do
    lake.assert_is_snapshot()
    assert lake.table().version() == 0


def test_a_run_with_nothing_to_do_publishes_what_is_not(lake: Lake) -> None:
    world = World()
    world.add(["/photos/1.jpg", "/photos/2.jpg"])
    play(Output(lake.store, clock=Hours()), world)
    assert begin(lake.output(), world).plan is None
    lake.assert_is_snapshot()


def test_once_there_is_a_table_it_is_kept_in_line_unasked(lake: Lake) -> None:
    world = make_world()
    play(lake.output(), world)
    for _ in range(2):
        change_world(world)
        play(lake.output(wanted=False), world, run="unasked", prune=True)
        lake.assert_is_snapshot()


def test_the_number_of_the_snapshot_outlives_checkpoints_of_the_log(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "out"))
    play(lake.output(), make_world())
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None
    for sequence in range(2, 108):
        lake.mirror().follow(replace(snapshot, sequence=sequence))  # nothing but the number is new
    assert list((tmp_path / "out" / "_delta_log").glob("*.checkpoint.parquet"))
    assert lake.table().version() == 106
    for path in (tmp_path / "out" / "_delta_log").glob("*.json"):
        if int(path.stem) < 100:
            path.unlink()  # as a clean-up of the log does, in time
    lake.mirror().follow(replace(snapshot, sequence=107))
    assert lake.table().version() == 106
    assert lake.rows() == read_published(lake.store)


@pytest.mark.parametrize(
    ("lake", "n_races"), [("disk", 5), ("s3", 1), pytest.param("s3", 5, marks=pytest.mark.variant)], indirect=["lake"]
)
def test_one_of_many_publishers_wins(lake: Lake, n_races: int) -> None:
    world = make_world()
    for night in range(2):
        play(Output(lake.store, clock=Hours()), world, run=f"night-{night}")
        snapshot = last_snapshot(lake.store)
        assert snapshot is not None
        barrier = threading.Barrier(6)

        def follow(number: int, barrier: threading.Barrier = barrier, snapshot: Snapshot = snapshot) -> None:
            barrier.wait()
            lake.mirror().follow(snapshot)

        for _ in range(n_races):
            lake.store.delete(f"_delta_log/{night:020d}.json")
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(follow, range(6)))
            assert lake.table().version() == night
        lake.assert_is_snapshot()
        world.add([f"/photos/of-night-{night}.jpg"])


@pytest.mark.parametrize(
    ("every", "acts"),
    [
        pytest.param(2, WIRE_ACTS, id="by turns"),
        *(pytest.param(1, [act], id=act, marks=pytest.mark.variant) for act in WIRE_ACTS),
    ],
)
def test_requests_that_break_on_the_wire(
    s3_bucket: tuple[str, str], fault_proxy: FaultProxy, every: int, acts: Sequence[Wire]
) -> None:
    """Whichever request of a commit breaks, the table is written once."""
    endpoint, bucket = s3_bucket
    lake = open_lake(f"s3://{bucket}/out", s3_endpoint_url=endpoint)
    world = make_world()
    play(lake.output(), world)
    change_world(world)
    play(Output(lake.store, clock=Hours()), world, run="second")
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None
    mirror = Mirror(lake.store, StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=4, timeout_s=3))

    def follow(*rules: Rule) -> int:
        lake.store.delete(f"_delta_log/{1:020d}.json")
        fault_proxy.requests, fault_proxy.rules = [], list(rules)
        mirror.follow(snapshot)
        assert lake.table().version() == 1
        assert lake.files() == {part.name for part in snapshot.parts}
        return fault_proxy.count("_delta_log")

    n = follow()
    assert n >= 4
    for at, act in zip(range(0, n, every), cycle(acts), strict=False):
        assert follow(Rule("_delta_log", act, amount=20, times=1, after=at)) > at


@pytest.mark.parametrize("kind", ["disk", pytest.param("s3", marks=pytest.mark.variant)])
def test_three_processes_publish_one_output(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    endpoint, uri = "", str(tmp_path / "out")
    if kind == "s3":
        endpoint, bucket = request.getfixturevalue("s3_bucket")
        uri = f"s3://{bucket}/out"
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "support.racer", uri, endpoint, name, "3", "delta"],
            cwd=TESTS,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob", "eve")
    ]
    for racer in racers:
        _, errors = racer.communicate()
        assert racer.returncode == 0, errors
    lake = open_lake(uri, s3_endpoint_url=endpoint or None)
    settle(lake.store, lake.mirror())
    lake.assert_is_snapshot()
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None
    assert lake.table().version() < snapshot.sequence


def assert_readable(lake: Lake) -> None:
    """Every file that the table lists is there; together they are one of the snapshots."""
    if next(lake.store.list("_delta_log"), None) is None:
        return
    files = lake.files()
    assert files <= {name for name, _ in lake.store.list()}
    number, found = 1, []
    while (snapshot := read_snapshot(lake.store, number)) is not None:
        found.append({part.name for part in snapshot.parts})
        number += 1
    assert files in found


@pytest.mark.parametrize(
    "every", [28, pytest.param(6, marks=pytest.mark.variant), pytest.param(1, marks=pytest.mark.faults)]
)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_every_operation_of_publishing_is_a_place_to_die_at(tmp_path: Path, story: str, act: Act, every: int) -> None:
    """The commit itself breaks in every tier."""

    def prepare(lake: Lake) -> World:
        world = make_world()
        if story == "second":
            play(lake.output(), world, run="before", rows_per_part=3)
            change_world(world)
        return world

    counted = open_lake(str(tmp_path / "counted"))
    world, counting = prepare(counted), Breaking(counted.store)
    mirror = BreakingMirror(counting, counted.store, counted.spec)
    play(Output(counting, mirror, clock=Hours()), world, run="broken", rows_per_part=3, prune=True)
    assert mirror.published_at
    # What comes before the snapshot is `test_crashpoints`'.
    commit = mirror.published_at[-1]
    first = commit - 14 + ACTS.index(act) * every // len(ACTS)
    for at in {commit, *range(first, counting.n_operations + 1, every)}:
        lake = open_lake(str(tmp_path / f"out-{at}"))
        world, broken = prepare(lake), Breaking(lake.store, at, act)
        break_and_mend(
            lake.store,
            world,
            broken,
            lambda lake=lake: assert_readable(lake),
            mirrors=(BreakingMirror(broken, lake.store, lake.spec), lake.mirror(wanted=False)),
        )
        if lake.mirror(wanted=False).is_there:
            lake.assert_is_snapshot()


def test_tables_that_are_not_ours_are_refused_before_anything_runs(lake: Lake) -> None:
    options = storage_options(lake.store.uri, lake.spec)
    world = make_world()
    write_deltalake(location(lake.store.uri), pa.table({"a": [1]}), storage_options=options)
    with pytest.raises(SpecError, match=r"output\.publish: the Delta table in .* was not made from this output"):
        lake.output().check(FIELDS)
    # Published before the other table came: the same.
    play(Output(lake.store, clock=Hours()), world)
    with pytest.raises(SpecError, match=r"was not made from this output.*_delta_log away"):
        lake.output().check(FIELDS)
    assert lake.table().to_pyarrow_table().to_pylist() == [{"a": 1}]


def test_what_others_did_to_the_table_is_seen(lake: Lake) -> None:
    world = make_world()
    play(lake.output(), world)
    options = storage_options(lake.store.uri, lake.spec)
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None

    # A file taken out is put back.
    table = lake.table()
    (first, *_) = sorted(lake.files())
    part = next(part for part in snapshot.parts if part.name == first)
    table.delete(f"id >= {part.first_id} and id <= {part.last_id}")
    assert ["lists other parts" in line for line in lake.mirror().find_differences(snapshot)] == [True]
    begin(lake.output(), world)
    lake.assert_is_snapshot()

    # Files of another writer are not.
    rows = lake.table().to_pyarrow_table().slice(0, 2)
    write_deltalake(location(lake.store.uri), rows, mode="append", storage_options=options)
    with pytest.raises(SpecError, match="holds 1 files that are no parts of the output"):
        lake.output().check(FIELDS)
    assert "no parts of the output" in next(lake.mirror().find_differences(snapshot))


def test_a_column_added_by_others_is_seen(lake: Lake) -> None:
    from deltalake import Field, Schema

    play(lake.output(), make_world())
    lake.table().alter.add_columns(Schema([Field("mine", "string")]).fields)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="has other columns than the output"):
        lake.output().check(FIELDS)


def test_a_table_left_behind_is_a_difference(lake: Lake) -> None:
    world = make_world()
    play(lake.output(), world)
    change_world(world)
    play(Output(lake.store, clock=Hours()), world, run="by another version")
    snapshot = last_snapshot(lake.store)
    assert snapshot is not None
    assert list(lake.mirror().find_differences(snapshot)) == [
        "the Delta table holds snapshot 1 of 2; the next run brings it in line"
    ]


def test_a_table_that_cannot_be_written_leaves_the_parts_that_it_lists(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "out"))
    world = make_world()
    play(lake.output(), world)
    change_world(world)
    log = tmp_path / "out" / "_delta_log"
    kept = {path.name: path.read_bytes() for path in log.iterdir()}
    for path in log.iterdir():
        path.write_bytes(b"{")
    broken = Output(lake.store, _Failing(lake.mirror()), clock=Hours())  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="injected"):
        play(broken, world, run="second", prune=True)
    with pytest.raises(StoreError, match=r"output\.publish: the Delta table in .* cannot be read"):
        lake.output().check(FIELDS)
    for name, data in kept.items():
        (log / name).write_bytes(data)
    assert_readable(lake)
    play(lake.output(), world, run="third", prune=True)
    lake.assert_is_snapshot()
    assert_exact(lake.store, world)


class _Failing:
    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def follow(self, snapshot: object) -> None:
        raise StoreError("injected")


def test_embeddings_and_kept_columns_come_through(lake: Lake) -> None:
    world = World()
    world.add(["/photos/s.tar"], kind="tar", n_images=7)
    output = lake.output()
    work = begin(output, world)
    assert work.plan is not None
    assert work.lease is not None
    rows = [row for piece in cut_tasks(output, work.plan) for row in read_slice(lake.store, world, piece)]
    table = to_table(rows)
    image_ND = np.random.default_rng(0).normal(size=(7, 16)).astype("<f2")
    vectors = pa.array([row.tobytes() for row in image_ND], pa.binary(32))
    table = table.append_column(embedding_field(16), vectors).append_column("owner", [["ann"] * 7])
    output.write_part(work.plan, table, {"fingerprint": "f"}, "t-000000")
    output.publish(work.plan, output.claim(FIELDS))
    work.lease.end()

    read = lake.table().to_pyarrow_table().sort_by("id")
    assert read.schema.field("embedding").type == pa.binary()
    np.testing.assert_array_equal(
        np.frombuffer(b"".join(read["embedding"].to_pylist()), "<f2").reshape(7, 16), image_ND
    )
    assert read["owner"].to_pylist() == ["ann"] * 7
    assert read["predictions"].type.value_type.names == ["label", "score", "similarity"]


def test_duckdb_reads_the_files_that_the_log_lists(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "out"))
    world = make_world()
    play(lake.output(), world)
    # A run that is open: its part is in the folder, and not in the table.
    (tmp_path / "out" / "part-00002-00000000-open.parquet").write_bytes(
        (tmp_path / "out" / min(lake.files())).read_bytes()
    )
    files = [str(tmp_path / "out" / name) for name in lake.files()]
    rows = duckdb.sql(f"select id, uri, key, outcome, label from read_parquet({files!r}) order by id").fetchall()
    assert [dict(zip(COLUMNS, row, strict=True)) for row in rows] == lake.rows()
    assert pq.read_table(files[0]).num_rows


def test_vacuum_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path / "out"))
    play(lake.output(), make_world())
    before = {path for path in (tmp_path / "out").rglob("*") if "_delta_log" not in path.parts}
    lake.table().vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    assert {path for path in (tmp_path / "out").rglob("*") if "_delta_log" not in path.parts} == before


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = open_lake(str(tmp_path / "out"))
    monkeypatch.setattr(delta, "_PACKAGE", "no_such_package")
    with pytest.raises(
        SpecError, match=r"output\.publish needs no_such_package; .*pip install -c constraints.txt '\.\[delta\]'"
    ):
        lake.output().check(FIELDS)
    lake.output(wanted=False).check(FIELDS)  # nothing needs it
    monkeypatch.undo()
    play(lake.output(), make_world())
    monkeypatch.setattr(delta, "_PACKAGE", "no_such_package")
    # There is a table, and a run that could not keep it in line must not begin.
    with pytest.raises(SpecError, match=r"the Delta table in .* needs no_such_package"):
        lake.output(wanted=False).check(FIELDS)


def test_a_folder_that_deltalake_does_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a % in its name"):
        open_lake(str(tmp_path / "50%")).output().check(FIELDS)
