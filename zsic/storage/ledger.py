"""What the parts of a plan hold: the parts are the only record of what is done.

A part's `id` column says which rows exist; its footer says how many rows those sources have whose end it holds.
A source is done when its total is known and all its ids exist.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import StoreError
from zsic.core.schema import INDEX_BITS, read_metadata
from zsic.storage.plan import Plan, read_piece
from zsic.storage.store import Store

Ids = npt.NDArray[np.int64]
Runs = tuple[tuple[int, int], ...]
"""Half-open ranges of indices within a source, ascending and disjoint."""


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What one part holds, counted from its columns."""

    name: str
    n_bytes: int
    ids_N: Ids
    totals: Mapping[int, int]
    outcomes: Mapping[str, int]


def read_part(store: Store, name: str, n_bytes: int) -> PartFacts:
    """Count one part.  Raises `StoreError` if it is not a part of zsic's."""
    try:
        with store.open(name) as file:
            reader = pq.ParquetFile(file)
            totals = read_metadata(reader.schema_arrow, "source_totals")
            table = reader.read(["id", "outcome"])
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(
            f"output: {store.uri}/{name} cannot be read ({error}); delete it and run again: "
            "its images will be classified anew"
        ) from error
    if not isinstance(totals, dict):
        raise StoreError(f"output: {store.uri}/{name} was not written by zsic; move it out of the output")
    counts = pc.value_counts(table["outcome"]).to_pylist()
    return PartFacts(
        name=name,
        n_bytes=n_bytes,
        ids_N=table["id"].to_numpy(),
        totals={int(ordinal): total for ordinal, total in totals.items()},
        outcomes={entry["values"]: entry["counts"] for entry in counts},
    )


@dataclass
class Ledger:
    """The rows of one plan that exist.

    Memory: two bytes a source, plus the ranges of those shards that are begun and not done.
    """

    plan: Plan
    n_rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, rows and bytes of each part."""
    n_doubled: int = 0
    """Rows that exist more than once, beyond the first."""

    def __post_init__(self) -> None:
        self._done_N = np.zeros(self.plan.n_sources, bool)
        self._loose_N = np.zeros(self.plan.n_sources, bool)
        self._totals: dict[int, int] = {}
        self._runs: dict[int, Runs] = {}

    def set_loose(self, first: int, loose_N: npt.NDArray[np.bool_]) -> None:
        """Say which of the sources from position `first` on are single images, whose total is 1."""
        self._loose_N[first : first + len(loose_N)] = loose_N

    def add(self, part: PartFacts) -> None:
        """Enter one part."""
        self.parts.append((part.name, len(part.ids_N), part.n_bytes))
        self.n_rows += len(part.ids_N)
        self.outcomes.update(part.outcomes)
        first = self.plan.first_ordinal
        positions_N = (part.ids_N >> INDEX_BITS) - first
        if len(positions_N) and not (positions_N.min() >= 0 and positions_N.max() < self.plan.n_sources):
            raise StoreError(f"output: {part.name} holds ids that its plan does not; move it away")
        loose_N = self._loose_N[positions_N]
        self._add_images(positions_N[loose_N])
        for ordinal, total in part.totals.items():
            # A shard whose rest could not be read at one attempt, and could at the next, has two; the longer holds.
            self._totals[ordinal - first] = max(total, self._totals.get(ordinal - first, 0))
        touched = self._add_shards(part.ids_N[~loose_N], first)
        for position in touched | {ordinal - first for ordinal in part.totals}:
            if self._loose_N[position]:
                continue
            if position in self._totals and self._runs.get(position) == ((0, self._totals[position]),):
                self._done_N[position] = True

    def _add_images(self, positions_N: Ids) -> None:
        distinct_N = np.unique(positions_N)
        self.n_doubled += len(positions_N) - len(distinct_N)
        self.n_doubled += int(self._done_N[distinct_N].sum())
        self._done_N[distinct_N] = True

    def _add_shards(self, ids_N: Ids, first: int) -> set[int]:
        touched = set()
        ordered_N = np.sort(ids_N)
        indices_N = ordered_N & ((1 << INDEX_BITS) - 1)
        positions_N = (ordered_N >> INDEX_BITS) - first
        starts = np.flatnonzero(np.diff(positions_N, prepend=-1))
        for chunk in np.split(np.arange(len(ordered_N)), starts[1:]):
            if not len(chunk):
                continue
            position = int(positions_N[chunk[0]])
            found = _runs_of(np.unique(indices_N[chunk]))
            merged = merge_runs(self._runs.get(position, ()), found)
            n_before = _n_in(self._runs.get(position, ()))
            self.n_doubled += len(chunk) - (_n_in(merged) - n_before)
            self._runs[position] = merged
            touched.add(position)
        return touched

    @property
    def n_sources_done(self) -> int:
        """Sources whose rows all exist."""
        return int(self._done_N.sum())

    @property
    def whole(self) -> bool:
        """Whether every planned source is done and no row exists twice."""
        return self.n_sources_done == self.plan.n_sources and not self.n_doubled

    def pending(self, first: int, stop: int) -> Iterator[tuple[int, Runs]]:
        """Positions in [first, stop) that are not done, each with the ranges that exist of it already."""
        for position in np.flatnonzero(~self._done_N[first:stop]) + first:
            yield int(position), self._runs.get(int(position), ())


def read_ledger(store: Store, plan: Plan) -> Ledger:
    """Read the ledger of a plan from its parts."""
    ledger = Ledger(plan)
    position = 0
    for piece in plan.pieces:
        kinds = read_piece(store, piece, ["kind"])["kind"]
        ledger.set_loose(position, pc.equal(kinds, "image").to_numpy())
        position += piece.n_sources
    for name, n_bytes in store.list():
        if name.startswith(plan.tag) and name.endswith(".parquet"):
            ledger.add(read_part(store, name, n_bytes))
    return ledger


def merge_runs(left: Runs, right: Runs) -> Runs:
    """The union of two sets of ranges.

    >>> merge_runs(((0, 2), (5, 7)), ((2, 4),))
    ((0, 4), (5, 7))
    """
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((*left, *right)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def _runs_of(indices_N: Ids) -> Runs:
    """Ascending distinct indices as ranges."""
    breaks = np.flatnonzero(np.diff(indices_N) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(indices_N, breaks))


def _n_in(runs: Runs) -> int:
    return sum(stop - start for start, stop in runs)
