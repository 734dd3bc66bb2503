"""Which sources one increment must classify: an immutable list, made once, resumed until its snapshot exists.

    OUT/_zsic/plan/00000001.json              the plan: its pieces, digests and totals
    OUT/_zsic/plan/piece-<digest>.parquet     at most `PIECE_ROWS` sources each

A source gets the next free ordinal when it is first planned, and keeps it: `id = ordinal << 24 | index`.  A later
plan may take it up again (it changed, or some of it failed), or drop it (it is gone and `prune` was asked for);
what that makes obsolete is superseded when the plan's snapshot is published, and not before.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import StoreError
from zsic.core.fingerprint import canonical
from zsic.storage.part import STAGED
from zsic.storage.store import Store

FOLDER = "_zsic/plan"
PIECE_ROWS = 100_000
"""Sources in one piece: about 10 MB of memory while it is made."""
GROUP_ROWS = 1_000
"""Sources in one row group, the least that a task reads of a piece."""

SOURCE_COLUMNS = (
    pa.field("uri", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("size", pa.int64()),
    pa.field("etag", pa.string()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("columns", pa.string()),
)
PLAN_SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        *SOURCE_COLUMNS,
        pa.field("attempt", pa.int8(), nullable=False),  # times that this version was taken up again by itself
        pa.field("kept", pa.list_(pa.int32())),  # ends of the ranges of rows that stay, when only the rest is redone
        pa.field("total", pa.int32()),  # rows of the source, where that is known from before
    ]
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One Parquet object of a plan."""

    name: str
    n_sources: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The sources of one increment.  `digest` identifies the plan in the names of its parts."""

    sequence: int
    redone: tuple[Piece, ...]
    """Sources that earlier plans hold and that are classified again, under the ordinals they have."""
    added: tuple[Piece, ...]
    """Sources that are new, in order of ordinal, without gaps from `first_added` on."""
    dropped: tuple[Piece, ...]
    """Sources whose rows are to go."""
    first_added: int
    n_bytes: int
    source: Mapping[str, object]
    """The `source` of the spec that was listed."""
    digest: str

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All that is to be classified; the position of a source counts over them."""
        return (*self.redone, *self.added)

    @property
    def n_added(self) -> int:
        """Sources that no earlier plan holds."""
        return sum(piece.n_sources for piece in self.added)

    @property
    def n_redone(self) -> int:
        """Sources that are classified again."""
        return sum(piece.n_sources for piece in self.redone)

    @property
    def n_dropped(self) -> int:
        """Sources whose rows are to go."""
        return sum(piece.n_sources for piece in self.dropped)

    @property
    def n_sources(self) -> int:
        """Sources to classify."""
        return self.n_redone + self.n_added

    @property
    def next_ordinal(self) -> int:
        """The first ordinal that no plan has used yet."""
        return self.first_added + self.n_added

    @property
    def supersedes(self) -> bool:
        """Whether rows that are published now will go."""
        return bool(self.redone or self.dropped)

    @property
    def tag(self) -> str:
        """The start of every part name of this plan."""
        return f"part-{self.sequence:05d}-{self.digest[:8]}-"

    @property
    def folder(self) -> str:
        """Where its parts are written: out of readers' sight if they replace rows that are still published."""
        return STAGED if self.supersedes else ""

    def place(self, name: str) -> str:
        """Where the part `name` is written."""
        return f"{self.folder}/{name}".lstrip("/")


def plan_name(sequence: int) -> str:
    """The name of the n-th plan, counted from 1."""
    return f"{FOLDER}/{sequence:08d}.json"


class PlanDraft:
    """A plan while it is made.  Streams: holds one piece of each kind."""

    def __init__(self, store: Store, sequence: int, first_added: int) -> None:
        self._store = store
        self._sequence = sequence
        self._first_added = first_added
        self._added = _Pieces(store)
        self._redone = _Pieces(store)
        self._dropped = _Pieces(store)
        self._n_bytes = 0

    def add(self, sources: pa.RecordBatch) -> None:
        """Plan sources that are new, given with `SOURCE_COLUMNS`."""
        n = sources.num_rows
        first = self._first_added + self._added.n_rows
        self._enter(
            self._added,
            pa.table(
                [
                    pa.array(range(first, first + n), pa.int64()),
                    *(sources.column(field.name) for field in SOURCE_COLUMNS),
                    pa.array([0] * n, pa.int8()),
                    pa.nulls(n, PLAN_SCHEMA.field("kept").type),
                    pa.nulls(n, pa.int32()),
                ],
                schema=PLAN_SCHEMA,
            ),
        )

    def redo(self, sources: pa.Table) -> None:
        """Plan sources, given with `PLAN_SCHEMA`, that earlier plans hold."""
        self._enter(self._redone, sources)

    def drop(self, sources: pa.Table) -> None:
        """Plan that the rows of these sources go."""
        self._dropped.add(sources)

    def _enter(self, pieces: "_Pieces", sources: pa.Table) -> None:
        pieces.add(sources)
        self._n_bytes += pc.sum(sources["size"]).as_py() or 0

    def close(self, source: Mapping[str, object]) -> Plan | None:
        """Create the plan; None if nothing is to be done.

        Whoever creates it first wins, and everybody gets the winner's.
        """
        pieces = {"redone": self._redone.close(), "added": self._added.close(), "dropped": self._dropped.close()}
        if not any(pieces.values()):
            return None
        body = {
            "sequence": self._sequence,
            **{name: [asdict(piece) for piece in each] for name, each in pieces.items()},
            "first_added": self._first_added,
            "n_bytes": self._n_bytes,
            "source": source,
        }
        self._store.create(plan_name(self._sequence), canonical(body))
        return read_plan(self._store, self._sequence)


class _Pieces:
    """Pieces of one kind while they are filled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: list[Piece] = []
        self._held: list[pa.Table] = []
        self._n_held = 0

    @property
    def n_rows(self) -> int:
        return sum(piece.n_sources for piece in self._pieces) + self._n_held

    def add(self, sources: pa.Table) -> None:
        while sources.num_rows:
            taken = sources.slice(0, PIECE_ROWS - self._n_held)
            self._held.append(taken)
            self._n_held += taken.num_rows
            sources = sources.slice(taken.num_rows)
            if self._n_held == PIECE_ROWS:
                self._write()

    def close(self) -> list[Piece]:
        if self._held:
            self._write()
        return self._pieces

    def _write(self) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.concat_tables(self._held), buffer, row_group_size=GROUP_ROWS, compression="zstd")
        data = buffer.getvalue()
        name = f"{FOLDER}/piece-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
        if not self._store.create(name, data):
            raise StoreError(f"output: {self._store.uri}/{name} is damaged; delete it and run again")
        self._pieces.append(Piece(name, self._n_held))
        self._held, self._n_held = [], 0


def read_plan(store: Store, sequence: int) -> Plan | None:
    """Read the n-th plan of an output; None if there is none yet."""
    data = store.read(plan_name(sequence))
    if data is None:
        return None
    body = json.loads(data)
    redone, added, dropped = (tuple(Piece(**piece) for piece in body[name]) for name in ("redone", "added", "dropped"))
    return Plan(
        sequence=body["sequence"],
        redone=redone,
        added=added,
        dropped=dropped,
        first_added=body["first_added"],
        n_bytes=body["n_bytes"],
        source=body["source"],
        digest=hashlib.sha256(data).hexdigest(),
    )


def require_plan(store: Store, sequence: int) -> Plan:
    """Read a plan that must be there."""
    plan = read_plan(store, sequence)
    if plan is None:
        raise StoreError(f"output: {store.uri} has lost the plan {sequence}; it cannot be continued")
    return plan


def read_piece(store: Store, piece: Piece, columns: list[str] | None = None) -> pa.Table:
    """Read the sources of one piece, or some of their columns."""
    with _open(store, piece.name) as file:
        return pq.ParquetFile(file, pre_buffer=True).read(columns, use_threads=False)


def read_sources(store: Store, name: str, start: int, stop: int) -> pa.Table:
    """Read the sources at the positions [start, stop) of a piece, touching only their row groups."""
    first, last = start // GROUP_ROWS, (stop - 1) // GROUP_ROWS
    with _open(store, name) as file:
        groups = pq.ParquetFile(file, pre_buffer=True).read_row_groups(list(range(first, last + 1)), use_threads=False)
    return groups.slice(start - first * GROUP_ROWS, stop - start)


@contextlib.contextmanager
def _open(store: Store, name: str) -> Iterator[BinaryIO]:
    """Open a piece.  Raises `StoreError` where it is gone or damaged: without it the output cannot be continued."""
    try:
        with store.open(name) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"output: {store.uri}/{name}, a piece of a plan, cannot be read: {error}") from error
