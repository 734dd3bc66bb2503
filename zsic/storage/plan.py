"""Which sources one increment must classify: an immutable list, made once, resumed until its snapshot exists.

    OUT/_zsic/plan/00000001.json              the plan: its pieces, digests and totals
    OUT/_zsic/plan/piece-<digest>.parquet     at most `PIECE_ROWS` sources each, in order of ordinal

The ordinal of a source is its position over all plans of an output; `id = ordinal << 24 | index`.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import StoreError
from zsic.core.fingerprint import canonical
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
PLAN_SCHEMA = pa.schema([pa.field("ordinal", pa.int64(), nullable=False), *SOURCE_COLUMNS])


@dataclass(frozen=True, slots=True)
class Piece:
    """One Parquet object of a plan."""

    name: str
    first_ordinal: int
    n_sources: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The sources of one increment.  `digest` identifies the plan in the names of its parts."""

    sequence: int
    pieces: tuple[Piece, ...]
    n_sources: int
    n_bytes: int
    source: Mapping[str, object]
    """The `source` of the spec that was listed."""
    digest: str

    @property
    def first_ordinal(self) -> int:
        """The ordinal of the plan's first source."""
        return self.pieces[0].first_ordinal

    @property
    def tag(self) -> str:
        """The start of every part name of this plan."""
        return f"part-{self.sequence:05d}-{self.digest[:8]}-"


def plan_name(sequence: int) -> str:
    """The name of the n-th plan, counted from 1."""
    return f"{FOLDER}/{sequence:08d}.json"


def write_plan(
    store: Store,
    sequence: int,
    first_ordinal: int,
    batches: Iterable[pa.RecordBatch],
    source: Mapping[str, object],
) -> Plan | None:
    """Write the listing of `source` as the plan `sequence`; None if it is empty.

    Streams: holds one piece.  Whoever creates the plan first wins, and everybody gets the winner's.
    """
    pieces: list[Piece] = []
    n_bytes = 0
    for table in _pieces(batches):
        ordinal = first_ordinal + sum(piece.n_sources for piece in pieces)
        ordinals = pa.array(np.arange(ordinal, ordinal + table.num_rows), pa.int64())
        columns = [ordinals, *(table[field.name] for field in SOURCE_COLUMNS)]
        buffer = io.BytesIO()
        pq.write_table(
            pa.table(columns, schema=PLAN_SCHEMA),
            buffer,
            row_group_size=GROUP_ROWS,
            compression="zstd",
        )
        data = buffer.getvalue()
        name = f"{FOLDER}/piece-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
        if not store.create(name, data):
            raise StoreError(f"output: {store.uri}/{name} is damaged; delete it and run again")
        pieces.append(Piece(name, ordinal, table.num_rows))
        n_bytes += pc.sum(table["size"]).as_py() or 0
    if not pieces:
        return None
    body = {
        "sequence": sequence,
        "pieces": [asdict(piece) for piece in pieces],
        "n_sources": sum(piece.n_sources for piece in pieces),
        "n_bytes": n_bytes,
        "source": source,
    }
    store.create(plan_name(sequence), canonical(body))
    return read_plan(store, sequence)


def read_plan(store: Store, sequence: int) -> Plan | None:
    """Read the n-th plan of an output; None if there is none yet."""
    data = store.read(plan_name(sequence))
    if data is None:
        return None
    body = json.loads(data)
    return Plan(
        sequence=body["sequence"],
        pieces=tuple(Piece(**piece) for piece in body["pieces"]),
        n_sources=body["n_sources"],
        n_bytes=body["n_bytes"],
        source=body["source"],
        digest=hashlib.sha256(data).hexdigest(),
    )


def read_piece(store: Store, piece: Piece, columns: list[str] | None = None) -> pa.Table:
    """Read the sources of one piece, or some of their columns."""
    with store.open(piece.name) as file:
        return pq.ParquetFile(file, pre_buffer=True).read(columns)


def read_sources(store: Store, name: str, start: int, stop: int) -> pa.Table:
    """Read the sources at the positions [start, stop) of a piece, touching only their row groups."""
    first, last = start // GROUP_ROWS, (stop - 1) // GROUP_ROWS
    with store.open(name) as file:
        groups = pq.ParquetFile(file, pre_buffer=True).read_row_groups(list(range(first, last + 1)))
    return groups.slice(start - first * GROUP_ROWS, stop - start)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Regroup batches into tables of `PIECE_ROWS`, the last one shorter."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        while batch.num_rows:
            taken = batch.slice(0, PIECE_ROWS - n_held)
            held.append(taken)
            n_held += taken.num_rows
            batch = batch.slice(taken.num_rows)
            if n_held == PIECE_ROWS:
                yield pa.Table.from_batches(held)
                held, n_held = [], 0
    if held:
        yield pa.Table.from_batches(held)


class KnownSources:
    """The sources of earlier plans: 24 bytes each in memory, whatever their names.

    Answers for each listed source whether it is new, known, or known in another version.
    """

    def __init__(self, store: Store, plans: Iterable[Plan]) -> None:
        uris_N2: list[npt.NDArray[np.uint64]] = []
        versions_N: list[npt.NDArray[np.uint64]] = []
        for plan in plans:
            for piece in plan.pieces:
                table = read_piece(store, piece, ["uri", "size", "etag", "mtime_ns"])
                uris_N2.append(_hash_uris(table))
                versions_N.append(_hash_versions(table))
        uris = np.concatenate(uris_N2) if uris_N2 else np.empty((0, 2), np.uint64)
        versions = np.concatenate(versions_N) if versions_N else np.empty(0, np.uint64)
        # A later plan's version of a source comes last among equals, and is the one that counts.
        order = np.lexsort((np.arange(len(uris)), uris[:, 1], uris[:, 0]))
        self._uris_N2, self._versions_N = uris[order], versions[order]

    def split(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The new sources of a batch, and how many are known in another version."""
        if not len(self._uris_N2) or not batch.num_rows:
            return batch, 0
        uris_B2 = _hash_uris(batch)
        position = np.searchsorted(self._uris_N2[:, 0], uris_B2[:, 0], side="right") - 1
        # Two URLs that agree in the first 64 bits of their hashes are not expected in this universe's lifetime
        # of data lakes, yet losing an image to it would be silent: the second 64 bits are compared as well.
        held = np.maximum(position, 0)
        known = (position >= 0) & (self._uris_N2[held] == uris_B2).all(axis=1)
        changed = known & (self._versions_N[held] != _hash_versions(batch))
        return batch.filter(pa.array(~known)), int(changed.sum())


def _hash_uris(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.uint64]:
    digests = b"".join(
        hashlib.blake2b(uri.encode(), digest_size=16).digest() for uri in table.column("uri").to_pylist()
    )
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _hash_versions(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """The etag decides; where the store has none, size and modification time do."""
    rows = zip(
        table.column("etag").to_pylist(),
        table.column("size").to_pylist(),
        table.column("mtime_ns").to_pylist(),
        strict=True,
    )
    digests = b"".join(
        hashlib.blake2b((etag if etag is not None else f"{size}/{mtime_ns}").encode(), digest_size=8).digest()
        for etag, size, mtime_ns in rows
    )
    return np.frombuffer(digests, np.uint64)
