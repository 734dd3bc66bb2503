"""What a listing of the source asks of an output: sources that are new, changed, worth another try, or gone."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.outcome import Outcome
from zsic.core.schema import INDEX_BITS
from zsic.storage.known import UNKNOWN, KnownSources
from zsic.storage.ledger import Runs, merge_runs, runs_of
from zsic.storage.part import Ids, Mask
from zsic.storage.plan import PLAN_SCHEMA, SOURCE_COLUMNS, Plan, PlanDraft, read_piece
from zsic.storage.snapshot import Snapshot, read_published
from zsic.storage.store import Store

MAX_ATTEMPTS = 5
"""Times that a version of a source which could not be had is taken up again by itself."""

_PASSING = frozenset({Outcome.UNREACHABLE})
_IF_LISTED = frozenset({Outcome.MISSING, Outcome.CHANGED})
"""Worth another try where the listing has just seen the very version that was not to be had."""


@dataclass(frozen=True, slots=True)
class _Retry:
    """What stays of a shard of which only some rows are done again."""

    kept: Runs
    total: int | None


class Changes:
    """Iterates once over a listing, and gives what is to be done with each batch; counts on the way.

    `covers` says, once the listing is over, whether it would have held a source that still existed; without it
    nothing is dropped.  Without `retry` nothing is worth another try.
    """

    def __init__(
        self,
        store: Store,
        plans: list[Plan],
        snapshot: Snapshot | None,
        listing: Iterable[pa.RecordBatch],
        *,
        retry: bool = True,
        retry_failed: bool = False,
        covers: Callable[[str], bool] | None = None,
    ) -> None:
        self._store = store
        self._plans = plans
        self._listing = listing
        self._covers = covers
        self._known = KnownSources(store, plans)
        self._retries = _find_retries(store, snapshot if retry else None, self._known, retry_failed=retry_failed)
        self.n_listed = 0
        self.n_added = 0
        self.n_changed = 0
        self.n_retried = 0
        self.n_dropped = 0

    def __iter__(self) -> Iterator["Change"]:
        for batch in self._listing:
            self.n_listed += batch.num_rows
            change = self._sort(batch)
            if change.added.num_rows or change.redone.num_rows:
                yield change
        if self._covers is not None:
            yield from self._find_gone(self._covers)

    def _sort(self, batch: pa.RecordBatch) -> "Change":
        ordinals_B, changed_B = self._known.match(batch)
        added_B = ordinals_B == UNKNOWN
        retried_B = np.isin(ordinals_B, self._retries.ordinals_N) & ~changed_B & ~added_B
        was_seen_B = pc.or_(batch["etag"].is_valid(), batch["mtime_ns"].is_valid()).to_numpy(zero_copy_only=False)
        retried_B &= was_seen_B | ~np.isin(ordinals_B, self._retries.if_listed_N)
        self.n_added += int(added_B.sum())
        self.n_changed += int(changed_B.sum())
        self.n_retried += int(retried_B.sum())
        redone_B = np.flatnonzero(changed_B | retried_B)
        sources = batch.take(pa.array(redone_B))
        retries = [
            self._retries.of_shards.get(int(ordinals_B[at])) if retried_B[at] else None for at in redone_B.tolist()
        ]
        attempts = [int(self._known.attempt_N[ordinals_B[at]]) + 1 if retried_B[at] else 0 for at in redone_B.tolist()]
        redone = pa.table(
            [
                pa.array(ordinals_B[redone_B]),
                *(sources.column(field.name) for field in SOURCE_COLUMNS),
                pa.array([min(attempt, 127) for attempt in attempts], pa.int8()),
                pa.array(
                    [None if retry is None else [end for run in retry.kept for end in run] for retry in retries],
                    PLAN_SCHEMA.field("kept").type,
                ),
                pa.array([None if retry is None else retry.total for retry in retries], pa.int32()),
            ],
            schema=PLAN_SCHEMA,
        )
        return Change(added=batch.filter(pa.array(added_B)), redone=redone, dropped=PLAN_SCHEMA.empty_table())

    def _find_gone(self, covers: Callable[[str], bool]) -> Iterator["Change"]:
        """The sources that the listing should have held and did not, read from the plans that hold their names."""
        gone_N = self._known.live_N & ~self._known.seen_N
        if not gone_N.any():
            return
        for plan in self._plans:
            for piece in plan.added:
                sources = read_piece(self._store, piece)
                at_N = np.flatnonzero(gone_N[sources["ordinal"].to_numpy()])
                names = sources["uri"].take(pa.array(at_N)).to_pylist()
                sources = sources.take(pa.array(at_N[[covers(name) for name in names]] if len(at_N) else at_N))
                self.n_dropped += sources.num_rows
                if sources.num_rows:
                    nothing = PLAN_SCHEMA.empty_table()
                    yield Change(added=_NOTHING_ADDED, redone=nothing, dropped=sources)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with some sources."""

    added: pa.RecordBatch
    """New ones, with `SOURCE_COLUMNS`."""
    redone: pa.Table
    """Those to classify again, with `PLAN_SCHEMA`."""
    dropped: pa.Table
    """Those whose rows are to go, with `PLAN_SCHEMA`."""

    def enter(self, draft: PlanDraft) -> None:
        """Put it into a plan."""
        draft.add(self.added)
        draft.redo(self.redone)
        draft.drop(self.dropped)

    @property
    def to_classify(self) -> pa.Table:
        """The sources that must be read, with `SOURCE_COLUMNS`."""
        names = [field.name for field in SOURCE_COLUMNS]
        return pa.concat_tables([pa.Table.from_batches([self.added]).select(names), self.redone.select(names)])


_NOTHING_ADDED = pa.RecordBatch.from_pylist([], schema=pa.schema(SOURCE_COLUMNS))


@dataclass(frozen=True, slots=True)
class _Retries:
    """Sources of which rows failed that are worth another try."""

    ordinals_N: Ids
    if_listed_N: Ids
    """Those of them that are not if the listing does not know their version."""
    of_shards: Mapping[int, _Retry]


def _find_retries(store: Store, snapshot: Snapshot | None, known: KnownSources, *, retry_failed: bool) -> _Retries:
    """Find the failed rows of the table to do again: those that may pass now, up to `MAX_ATTEMPTS` times, or all."""
    wanted = frozenset(Outcome) - {Outcome.OK} if retry_failed else _PASSING | _IF_LISTED
    if_listed = frozenset() if retry_failed else _IF_LISTED
    failed: list[Ids] = []
    anyway: list[Ids] = []
    without_key: list[Ids] = []
    for part in snapshot.parts if snapshot is not None else ():
        if wanted.isdisjoint(part.failed):
            continue
        _, rows = read_published(store, part, ["id", "outcome", "key"])
        ids_N = rows["id"].to_numpy()
        again_N = _is_in(rows["outcome"], wanted)
        if not retry_failed:
            again_N &= known.attempt_N[ids_N >> INDEX_BITS] < MAX_ATTEMPTS
        failed.append(ids_N[again_N])
        without_key.append(ids_N[again_N & rows["key"].is_null().to_numpy()])
        anyway.append(ids_N[again_N & ~_is_in(rows["outcome"], if_listed)])
    if snapshot is None or not failed:
        nothing = np.empty(0, np.int64)
        return _Retries(nothing, nothing, {})
    failed_N = np.sort(np.concatenate(failed))
    ordinals_N = np.unique(failed_N >> INDEX_BITS)
    return _Retries(
        ordinals_N,
        np.setdiff1d(ordinals_N, np.concatenate(anyway) >> INDEX_BITS),
        # A row without a key may stand for all of the shard that follows it, so nobody knows how many rows there are.
        dict(_find_kept(store, snapshot, ordinals_N, failed_N, np.unique(np.concatenate(without_key) >> INDEX_BITS))),
    )


def _is_in(outcomes: pa.ChunkedArray, wanted: frozenset[Outcome]) -> Mask:
    in_N: Mask = pc.is_in(outcomes, pa.array(sorted(wanted), pa.string())).to_numpy()
    return in_N


def _find_kept(
    store: Store, snapshot: Snapshot, ordinals_N: Ids, failed_N: Ids, unsure_N: Ids
) -> Iterator[tuple[int, _Retry]]:
    """For each shard among the sources: the rows that stay, and how many it has in all where that is sure."""
    kept: dict[int, Runs] = {}
    totals: dict[int, int] = {}
    for part in snapshot.parts:
        first, last = np.searchsorted(ordinals_N, [part.first_id >> INDEX_BITS, (part.last_id >> INDEX_BITS) + 1])
        if first >= last:
            continue
        ids_N = np.sort(read_published(store, part, ["id"])[1]["id"].to_numpy())
        ids_N = ids_N[np.isin(ids_N >> INDEX_BITS, ordinals_N)]
        for of_one_N in np.split(ids_N, np.flatnonzero(np.diff(ids_N >> INDEX_BITS)) + 1) if len(ids_N) else ():
            ordinal = int(of_one_N[0] >> INDEX_BITS)
            indices_N = of_one_N & ((1 << INDEX_BITS) - 1)
            totals[ordinal] = max(totals.get(ordinal, 0), int(indices_N[-1]) + 1)
            stay_N = indices_N[~np.isin(of_one_N, failed_N)]
            if len(stay_N):
                kept[ordinal] = merge_runs(kept.get(ordinal, ()), runs_of(stay_N))
    for ordinal, runs in kept.items():
        if ordinal not in unsure_N:
            yield ordinal, _Retry(runs, totals[ordinal])
            continue
        # Its last row is read again, for it may be the last of all, and only a row can tell how many there are.
        *others, (start, stop) = runs
        runs = (*others, (start, stop - 1)) if stop - 1 > start else tuple(others)
        if runs:
            yield ordinal, _Retry(runs, None)
