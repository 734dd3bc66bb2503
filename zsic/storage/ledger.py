"""Which rows of a set of sources exist: the parts are the only record of what is done.

A part's `id` column says which rows it holds; its footer says how many rows those sources have whose end it holds.
A source is done when its total is known and all its ids exist.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from zsic.core.errors import StoreError
from zsic.core.schema import INDEX_BITS
from zsic.storage.part import AGAIN, Ids, Mask, PartFacts, read_part
from zsic.storage.plan import Plan, read_piece
from zsic.storage.store import Store

Runs = tuple[tuple[int, int], ...]
"""Half-open ranges of indices within a source, ascending and disjoint."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One part in a ledger."""

    name: str
    n_rows: int
    n_bytes: int
    first_id: int
    last_id: int
    outcomes: Mapping[str, int]
    totals: Mapping[int, int]
    """Rows of the shards, by ordinal, whose last row it holds."""
    fresh_N: Mask | None
    """Which of its rows no part entered before it holds; None for all."""

    @property
    def n_doubled(self) -> int:
        """Rows that exist in an earlier part too."""
        return 0 if self.fresh_N is None else self.n_rows - int(self.fresh_N.sum())


class Ledger:
    """The rows of some sources that exist.

    Sources have positions: first those of `redone`, then `n_added` whose ordinals run on from `first_added`.
    Memory: two bytes a source, and the ranges of each shard.
    """

    def __init__(self, first_added: int, n_added: int, redone: Sequence[int] | Ids = ()) -> None:
        redone_N = np.asarray(redone, np.int64)
        self._order_N = np.argsort(redone_N)
        self._redone_N = redone_N[self._order_N]
        self._first_added = first_added
        self.n_sources = len(redone_N) + n_added
        self.n_rows = 0
        """Distinct rows in the parts."""
        self.outcomes: Counter[str] = Counter()
        """Of all rows in the parts, doubled ones among them."""
        self.entries: list[Entry] = []
        self._loose_N = np.zeros(self.n_sources, bool)
        self._loose_done_N = np.zeros(self.n_sources, bool)
        self._totals: dict[int, int] = {}
        self._runs: dict[int, Runs] = {}

    def set_loose(self, first: int, loose_N: Mask) -> None:
        """Say which of the sources from position `first` on are single images, whose total is 1."""
        self._loose_N[first : first + len(loose_N)] = loose_N

    def keep(self, position: int, runs: Runs, total: int | None) -> None:
        """Say which rows of a shard exist elsewhere and stay, and how many it has if that is known."""
        self._runs[position] = runs
        if total is not None:
            self._totals[position] = total

    def tell_total(self, position: int, total: int) -> None:
        """Say that a reading met the end of a source behind so many rows."""
        self._totals[position] = max(total, self._totals.get(position, 0))

    @property
    def n_doubled(self) -> int:
        """Rows that exist more than once, beyond the first."""
        return sum(entry.n_doubled for entry in self.entries)

    def add(self, part: PartFacts) -> None:
        """Enter one part.  Raises `StoreError` if it holds rows that are not these sources'."""
        positions_N = self._positions(part.ids_N >> INDEX_BITS)
        indices_N = part.ids_N & ((1 << INDEX_BITS) - 1)
        ended_N = self._positions(np.fromiter(part.totals, np.int64, len(part.totals)))
        if (positions_N < 0).any() or (ended_N < 0).any():
            raise StoreError(f"output: {part.name} holds ids that its plan does not; move it away")
        loose_N = self._loose_N[positions_N]
        if indices_N[loose_N].any():
            raise StoreError(f"output: {part.name} holds several images of a source that is one; move it away")
        fresh_N = np.zeros(len(part.ids_N), bool)
        fresh_N[loose_N] = self._add_images(positions_N[loose_N])
        fresh_N[~loose_N] = self._add_shards(positions_N[~loose_N], indices_N[~loose_N])
        for position, total in zip(ended_N.tolist(), part.totals.values(), strict=True):
            self.tell_total(position, total)
        self.n_rows += int(fresh_N.sum())
        self.outcomes.update(part.outcomes)
        self.entries.append(
            Entry(
                name=part.name,
                n_rows=len(part.ids_N),
                n_bytes=part.n_bytes,
                first_id=int(part.ids_N.min(initial=1 << 62)),
                last_id=int(part.ids_N.max(initial=-1)),
                outcomes=part.outcomes,
                totals={
                    ordinal: total
                    for (ordinal, total), position in zip(part.totals.items(), ended_N.tolist(), strict=True)
                    if not self._loose_N[position]
                },
                fresh_N=None if fresh_N.all() else fresh_N,
            )
        )

    def _positions(self, ordinals_N: Ids) -> Ids:
        """Where the sources stand; -1 for those of other plans."""
        positions_N = ordinals_N - self._first_added + len(self._redone_N)
        positions_N[(ordinals_N < self._first_added) | (positions_N >= self.n_sources)] = -1
        if len(self._redone_N):
            at_N = np.minimum(np.searchsorted(self._redone_N, ordinals_N), len(self._redone_N) - 1)
            redone_N = self._redone_N[at_N] == ordinals_N
            positions_N[redone_N] = self._order_N[at_N[redone_N]]
        return positions_N

    def _add_images(self, positions_N: Ids) -> Mask:
        """Enter loose images; returns which did not exist."""
        fresh_N = np.zeros(len(positions_N), bool)
        fresh_N[np.unique(positions_N, return_index=True)[1]] = True
        fresh_N &= ~self._loose_done_N[positions_N]
        self._loose_done_N[positions_N] = True
        return fresh_N

    def _add_shards(self, positions_N: Ids, indices_N: Ids) -> Mask:
        """Enter images of shards; returns which did not exist."""
        fresh_N = np.zeros(len(positions_N), bool)
        order_N = np.lexsort((indices_N, positions_N))
        borders_N = np.flatnonzero(np.diff(positions_N[order_N])) + 1
        for rows_N in np.split(order_N, borders_N) if len(order_N) else ():
            position = int(positions_N[rows_N[0]])
            of_one_N, firsts_N = np.unique(indices_N[rows_N], return_index=True)
            before = self._runs.get(position, ())
            new_N = ~are_in(of_one_N, before)
            fresh_N[rows_N[firsts_N[new_N]]] = True
            self._runs[position] = merge_runs(before, runs_of(of_one_N))
        return fresh_N

    def _total(self, position: int) -> int | None:
        """Rows of a shard, once its end has been read.

        Attempts that broke off at different places leave several ends: the farthest holds.  Rows behind it, which
        another attempt left that read on, show that it is none either: so no gap is ever taken for the end.
        """
        total = self._totals.get(position)
        runs = self._runs.get(position, ())
        return None if total is None or (runs and runs[-1][1] > total) else total

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

    def is_begun(self, position: int) -> bool:
        """Whether any row of a source exists."""
        return bool(self._loose_done_N[position]) or position in self._runs

    @property
    def all_there(self) -> bool:
        """Whether every source is done; rows may exist twice."""
        return self.n_sources_done == self.n_sources

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
    redone: list[int] = []
    for piece in plan.redone:
        redone += read_piece(store, piece, ["ordinal"])["ordinal"].to_pylist()
    ledger = Ledger(plan.first_added, plan.n_added, redone)
    position = 0
    for number, piece in enumerate(plan.pieces):
        sources = read_piece(store, piece, ["kind", "kept", "total"])
        ledger.set_loose(position, pc.equal(sources["kind"], "image").to_numpy())
        if number < len(plan.redone):
            for at, (kept, total) in enumerate(
                zip(sources["kept"].to_pylist(), sources["total"].to_pylist(), strict=True)
            ):
                if kept:
                    ledger.keep(position + at, tuple(zip(kept[::2], kept[1::2], strict=True)), total)
        position += piece.n_sources
    for place, n_bytes in store.list(plan.folder):
        name = place.rpartition("/")[2]
        task = name.removeprefix(plan.tag)
        if task != name and name.endswith(".parquet") and not task.startswith(AGAIN):
            with contextlib.suppress(FileNotFoundError):  # a writer that came too late takes its part back
                ledger.add(read_part(store, name, n_bytes, place=place))
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


def runs_of(indices_N: Ids) -> Runs:
    """Ascending distinct indices as ranges."""
    breaks = np.flatnonzero(np.diff(indices_N) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(indices_N, breaks))


def are_in(indices_N: Ids, runs: Runs) -> Mask:
    """Which indices lie in one of the ranges."""
    borders_N = np.array(runs, np.int64).reshape(-1)
    in_N: npt.NDArray[np.bool_] = np.searchsorted(borders_N, indices_N, side="right") % 2 == 1
    return in_N
