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


class DamagedPartError(StoreError):
    """An object named like a part is none, or is no longer one."""


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
            reader = pq.ParquetFile(file, pre_buffer=True)
            totals = read_metadata(reader.schema_arrow, "source_totals")
            table = reader.read(["id", "outcome"])
    except pa.ArrowInvalid as error:
        raise DamagedPartError(f"{name}: is damaged: {error}") from error
    except OSError as error:
        raise StoreError(f"output: {store.uri}/{name} cannot be read: {error}") from error
    if not isinstance(totals, dict):
        raise DamagedPartError(f"{name}: was not written by zsic")
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

    Memory: two bytes a source, and the ranges of each shard.
    """

    plan: Plan
    n_rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, rows and bytes of each part."""
    n_doubled: int = 0
    """Rows that exist more than once, beyond the first."""
    doubling_parts: list[str] = field(default_factory=list)
    """Parts that hold rows which parts before them hold."""

    def __post_init__(self) -> None:
        self._loose_N = np.zeros(self.plan.n_sources, bool)
        self._loose_done_N = np.zeros(self.plan.n_sources, bool)
        self._totals: dict[int, int] = {}
        self._runs: dict[int, Runs] = {}

    def set_loose(self, first: int, loose_N: npt.NDArray[np.bool_]) -> None:
        """Say which of the sources from position `first` on are single images, whose total is 1."""
        self._loose_N[first : first + len(loose_N)] = loose_N

    def add(self, part: PartFacts) -> None:
        """Enter one part."""
        positions_N = (part.ids_N >> INDEX_BITS) - self.plan.first_ordinal
        indices_N = part.ids_N & ((1 << INDEX_BITS) - 1)
        ended = {ordinal - self.plan.first_ordinal: total for ordinal, total in part.totals.items()}
        self._check(part.name, positions_N, indices_N, ended)
        self.parts.append((part.name, len(part.ids_N), part.n_bytes))
        self.n_rows += len(part.ids_N)
        self.outcomes.update(part.outcomes)
        loose_N = self._loose_N[positions_N]
        n_doubled = self._add_images(positions_N[loose_N])
        n_doubled += self._add_shards(positions_N[~loose_N], indices_N[~loose_N])
        for position, total in ended.items():
            self._totals[position] = max(total, self._totals.get(position, 0))
        if n_doubled:
            self.n_doubled += n_doubled
            self.doubling_parts.append(part.name)

    def _check(self, name: str, positions_N: Ids, indices_N: Ids, ended: Mapping[int, int]) -> None:
        every_N = np.concatenate([positions_N, np.fromiter(ended, np.int64, len(ended))])
        if len(every_N) and not (every_N.min() >= 0 and every_N.max() < self.plan.n_sources):
            raise StoreError(f"output: {name} holds ids that its plan does not; move it away")
        if indices_N[self._loose_N[positions_N]].any():
            raise StoreError(f"output: {name} holds several images of a source that is one; move it away")

    def _add_images(self, positions_N: Ids) -> int:
        """Enter loose images; returns how many existed already."""
        distinct_N = np.unique(positions_N)
        n_doubled = len(positions_N) - len(distinct_N) + int(self._loose_done_N[distinct_N].sum())
        self._loose_done_N[distinct_N] = True
        return n_doubled

    def _add_shards(self, positions_N: Ids, indices_N: Ids) -> int:
        """Enter images of shards; returns how many existed already."""
        n_doubled = 0
        order_N = np.lexsort((indices_N, positions_N))
        positions_N, indices_N = positions_N[order_N], indices_N[order_N]
        borders_N = np.flatnonzero(np.diff(positions_N)) + 1
        for of_one_N, position in zip(
            np.split(indices_N, borders_N),
            positions_N[np.concatenate([[0], borders_N])] if len(positions_N) else (),
            strict=False,
        ):
            before = self._runs.get(int(position), ())
            self._runs[int(position)] = merge_runs(before, _runs_of(np.unique(of_one_N)))
            n_doubled += len(of_one_N) - (_n_in(self._runs[int(position)]) - _n_in(before))
        return n_doubled

    def _total(self, position: int) -> int | None:
        """Rows of a shard, once its end has been read.

        Attempts that broke off at different places leave several ends.  The farthest holds, and rows beyond it
        show that there is more: so no gap is ever taken for the end.
        """
        total = self._totals.get(position)
        runs = self._runs.get(position, ())
        return None if total is None else max(total, runs[-1][1] if runs else 0)

    def _is_done(self, position: int) -> bool:
        return self._runs.get(position) == ((0, self._total(position)),)

    @property
    def n_shards(self) -> int:
        """Sources that are not single images."""
        return int((~self._loose_N).sum())

    @property
    def n_sources_done(self) -> int:
        """Sources whose rows all exist."""
        return int(self._loose_done_N.sum()) + sum(map(self._is_done, self._runs))

    @property
    def all_there(self) -> bool:
        """Whether every planned source is done; rows may exist twice."""
        return self.n_sources_done == self.plan.n_sources

    @property
    def whole(self) -> bool:
        """Whether every planned source is done and no row exists twice."""
        return self.all_there and not self.n_doubled

    def pending(self, first: int, stop: int) -> Iterator[tuple[int, Runs, int | None]]:
        """Positions in [first, stop) that are not done, each with what is known of it.

        That is the ranges that exist, and the total if the end has been read before.
        """
        for position in np.flatnonzero(~self._loose_done_N[first:stop]) + first:
            at = int(position)
            if not self._is_done(at):
                yield at, self._runs.get(at, ()), self._total(at)


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
