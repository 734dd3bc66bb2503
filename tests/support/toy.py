"""A source and a model in miniature, to play the commit protocol with: no image is decoded and no Ray started."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import SOURCE_TOTAL, output_schema
from zsic.core.spec import UpdateSpec
from zsic.storage.ledger import Runs
from zsic.storage.output import Output, Work
from zsic.storage.part import read_columns
from zsic.storage.plan import SOURCE_COLUMNS, Plan, read_sources
from zsic.storage.rows import RawRow, make_rows, reread
from zsic.storage.sample import End, Sample, Source
from zsic.storage.slices import Slice, cut
from zsic.storage.snapshot import Snapshot, last_snapshot
from zsic.storage.snapshot import read_published as read_part_rows
from zsic.storage.store import Store

FIELDS = {"model": {"digest": "m"}, "scoring": {"top_k": 5}}
SOURCE = {"uris": ["/photos"]}
SCHEMA = output_schema().append(pa.field(SOURCE_TOTAL, pa.int32()))


@dataclass
class Thing:
    """One source as it is now: an image, or a shard of several."""

    kind: str = "image"
    n_images: int = 1
    version: int = 1
    corrupt: frozenset[int] = frozenset()
    """Images that cannot be decoded."""
    broken_at: int | None = None
    """A shard that cannot be reached from this image on; 0 for an image that cannot be reached."""


@dataclass
class World:
    """All sources, by uri."""

    things: dict[str, Thing] = field(default_factory=dict)
    n_listings: int = 0

    def add(self, uris: Iterable[str], **fields: object) -> None:
        """Put sources of one kind."""
        for uri in uris:
            self.things[uri] = Thing(**fields)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self.n_listings += 1
        rows = [
            {
                "uri": uri,
                "kind": thing.kind,
                "size": 1_000 * thing.n_images,
                "etag": f"v{thing.version}",
                "mtime_ns": 1,
                "columns": None,
            }
            for uri, thing in sorted(self.things.items())
        ]
        for start in range(0, len(rows), 3):
            yield pa.RecordBatch.from_pylist(rows[start : start + 3], schema=pa.schema(SOURCE_COLUMNS))

    def covers(self, uri: str) -> bool:
        """All below the one folder."""
        return uri.startswith("/photos/")

    def read(self, source: Source, skip: Runs, again: int | None = None) -> Iterator[Sample | End]:
        """Read a source as the readers do: samples in order, then the end."""
        thing = self.things.get(source.uri)
        if thing is None or f"v{thing.version}" != source.etag:
            reason = Failure(Outcome.MISSING, "gone") if thing is None else Failure(Outcome.CHANGED, "another version")
            yield from _break_off(0, reason, skip)
            return
        for index in range(thing.n_images):
            if thing.broken_at is not None and index >= thing.broken_at:
                yield from _break_off(index, Failure(Outcome.UNREACHABLE, "no answer"), skip)
                return
            if index == again or not any(start <= index < stop for start, stop in skip):
                failure = Failure(Outcome.CORRUPT, "damaged") if index in thing.corrupt else None
                key = None if thing.kind == "image" else f"{index}.jpg"
                yield Sample(index, key, None if failure else b"%d" % thing.version, failure)
        yield End(thing.n_images)

    def expected(self) -> set[tuple[str, str | None, str, str | None]]:
        """What a table over all sources, as they are now, must hold: uri, key, outcome, answer."""
        return {
            (row.uri, row.key, row.failure.outcome if row.failure else "ok", _answer(row))
            for uri, thing in self.things.items()
            for row in make_rows(0, _source(uri, thing), self.read(_source(uri, thing), ()))
        }


def _source(uri: str, thing: Thing) -> Source:
    return Source(uri, thing.kind, 1_000 * thing.n_images, f"v{thing.version}", 1)  # type: ignore[arg-type]


def _break_off(index: int, reason: Failure, skip: Runs) -> Iterator[Sample | End]:
    if not any(start <= index < stop for start, stop in skip):
        yield Sample(index, None, None, reason)
    yield End(index + 1, reason)


def _answer(row: RawRow) -> str | None:
    """The toy's prediction: which version was read, so that rows of an old one are told from those of a new one."""
    return None if row.failure else f"version {(row.data or b'').decode()}"


def read_slice(store: Store, world: World, piece: Slice) -> list[RawRow]:
    """The rows of a slice, as the decode task makes them."""
    table = read_sources(store, piece.piece, piece.start, piece.stop)
    rows = table.select([column.name for column in SOURCE_COLUMNS]).to_pylist()
    made: list[RawRow] = []
    for ordinal, fields in zip(table["ordinal"].to_pylist(), rows, strict=True):
        source = Source(**fields)
        again = reread(piece.skip, piece.total)
        made += make_rows(ordinal, source, world.read(source, piece.skip, again), piece.skip, piece.total)
    return made


def to_table(rows: Sequence[RawRow]) -> pa.Table:
    """Rows as the encoder gives them to the sink."""
    return pa.Table.from_pylist(
        [
            {
                "id": row.id,
                "uri": row.uri,
                "key": row.key,
                "outcome": row.failure.outcome.value if row.failure else "ok",
                "detail": row.failure.detail if row.failure else None,
                "label": _answer(row),
                SOURCE_TOTAL: row.source_total,
            }
            for row in rows
        ],
        schema=SCHEMA,
    )


def cut_tasks(output: Output, plan: Plan, images_per_slice: int = 3) -> list[Slice]:
    """What is pending of a plan, in the pieces that tasks take."""
    return cut(output.store, plan, output.read_ledger(plan), images_per_slice=images_per_slice)


def write_rows(output: Output, plan: Plan, rows: Sequence[RawRow], task: str) -> str | None:
    """Write some rows as a part."""
    return output.write_part(plan, to_table(rows), {"fingerprint": "f"}, task) if rows else None


def begin(output: Output, world: World, **update: bool) -> Work:
    """Begin a run."""
    return output.begin(world, FIELDS, SOURCE, UpdateSpec(**update))


def play(output: Output, world: World, *, rows_per_part: int = 2, run: str = "run", **update: bool) -> Snapshot | None:
    """One whole run, one thing after the other; None if there was nothing to do."""
    work = begin(output, world, **update)
    if work.plan is None or work.lease is None:
        return None
    work.lease.beat()
    snapshot = output.published(work.plan)
    if snapshot is None:
        rows = [row for piece in cut_tasks(output, work.plan) for row in read_slice(output.store, world, piece)]
        for number, start in enumerate(range(0, len(rows), rows_per_part)):
            write_rows(output, work.plan, rows[start : start + rows_per_part], f"{run}-{number:06d}")
        snapshot = output.publish(work.plan, output.claim(FIELDS))
    work.lease.end()
    return snapshot


COLUMNS = ["id", "uri", "key", "outcome", "label"]


def read_published(store: Store) -> list[dict[str, object]]:
    """The table as a reader of the last snapshot sees it."""
    snapshot = last_snapshot(store)
    return _sorted(read_part_rows(store, part, COLUMNS)[1] for part in (snapshot.parts if snapshot else ()))


def read_folder(store: Store) -> list[dict[str, object]]:
    """The table as a reader of `OUT/*.parquet` sees it."""
    return _sorted(read_columns(store, name, COLUMNS) for name, _ in store.list() if name.endswith(".parquet"))


def _sorted(tables: Iterable[pa.Table]) -> list[dict[str, object]]:
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: str(row["id"]).zfill(20))


def assert_exact(store: Store, world: World) -> None:
    """One row for each image of the world, none else, of its present version, and the same to every reader."""
    from zsic.storage.verify import find_differences

    assert list(find_differences(store)) == []
    rows = read_published(store)
    assert rows == read_folder(store)
    assert len({row["id"] for row in rows}) == len(rows)
    found = [(row["uri"], row["key"], row["outcome"], row["label"]) for row in rows]
    assert len(set(found)) == len(found)
    assert set(found) == world.expected()
