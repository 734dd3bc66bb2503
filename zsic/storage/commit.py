"""Publishing a finished plan: what it supersedes goes, what is there twice is kept once, the rest stays as it is."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain

import numpy as np
import pyarrow as pa

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.fingerprint import canonical
from zsic.core.schema import INDEX_BITS
from zsic.storage.ledger import Entry, Ledger, Runs, are_in
from zsic.storage.part import AGAIN, STAGED, Ids, Mask, digest_of, read_columns, rewrite_part
from zsic.storage.plan import Plan, read_piece
from zsic.storage.snapshot import (
    Increment,
    PartEntry,
    Snapshot,
    count_outcomes,
    parse_snapshot,
    read_published,
    read_snapshot,
    snapshot_name,
)
from zsic.storage.store import Store


def commit(store: Store, plan: Plan, ledger: Ledger, fingerprint: str) -> Snapshot:
    """Publish a finished plan, and return the snapshot of its sequence as it is stored.

    What is there twice is published once.  Who comes second gets the first's snapshot.  Raises `IncompleteError` if
    rows are missing, or if another run published another plan in the meantime.
    """
    if not ledger.all_there:
        missing = ledger.n_sources - ledger.n_sources_done
        raise IncompleteError(
            f"{missing:,} of {ledger.n_sources:,} sources are not whole; run the same command again to resume"
        )
    snapshot = _draft(store, plan, ledger, fingerprint)
    store.create(snapshot_name(plan.sequence), canonical(asdict(snapshot)))
    # Read back even after a success: where a store lets two creators win, the one that is stored counts.
    stored = read_snapshot(store, plan.sequence)
    if stored is None or stored.plan_digest != plan.digest:
        raise IncompleteError(
            f"another run published {store.uri}/{snapshot_name(plan.sequence)} first; nothing is lost: run the same "
            "command again"
        )
    return stored


def _draft(store: Store, plan: Plan, ledger: Ledger, fingerprint: str) -> Snapshot:
    """What would be published; the parts that have to be written again for it are staged."""
    parent = store.read(snapshot_name(plan.sequence - 1)) if plan.sequence > 1 else None
    before = parse_snapshot(parent).parts if parent is not None else ()
    superseded = Superseded(store, plan)
    carried = tuple(_carry_over(store, plan, before, superseded))
    brought = tuple(_publish_parts(store, plan, ledger))
    totals = {} if parent is None else parse_snapshot(parent).totals
    totals = {ordinal: total for ordinal, total in totals.items() if not superseded.holds(int(ordinal))}
    n_before, n_carried = sum(part.n_rows for part in before), sum(part.n_rows for part in carried)
    n_brought = sum(part.n_rows for part in brought)
    return Snapshot(
        sequence=plan.sequence,
        parent=None if parent is None else hashlib.sha256(parent).hexdigest(),
        plan_digest=plan.digest,
        fingerprint=fingerprint,
        parts=(*carried, *brought),
        n_rows=n_carried + n_brought,
        increment=Increment(plan.n_sources, n_brought, count_outcomes(brought), n_before - n_carried),
        totals=totals | _untold(ledger),
    )


class Superseded:
    """Which rows of before a plan makes obsolete: those of the sources it takes up again, but for what it keeps."""

    def __init__(self, store: Store, plan: Plan) -> None:
        ordinals: list[int] = []
        self._kept: dict[int, Runs] = {}
        for piece in chain(plan.redone, plan.dropped):
            rows = read_piece(store, piece, ["ordinal", "kept"])
            ordinals += rows["ordinal"].to_pylist()
            for ordinal, kept in zip(rows["ordinal"].to_pylist(), rows["kept"].to_pylist(), strict=True):
                if kept:
                    self._kept[ordinal] = tuple(zip(kept[::2], kept[1::2], strict=True))
        self._ordinals_N = np.sort(np.array(ordinals, np.int64))

    def holds(self, ordinal: int) -> bool:
        """Whether the plan takes a source up again, or drops it."""
        at = int(np.searchsorted(self._ordinals_N, ordinal))
        return at < len(self._ordinals_N) and int(self._ordinals_N[at]) == ordinal

    def may_touch(self, part: PartEntry) -> bool:
        """Whether the part may hold such rows, by the ids it begins and ends with."""
        first, last = np.searchsorted(self._ordinals_N, [part.first_id >> INDEX_BITS, (part.last_id >> INDEX_BITS) + 1])
        return bool(first < last)

    def find(self, ids_N: Ids) -> Mask:
        """Which of these rows are obsolete."""
        ordinals_N = ids_N >> INDEX_BITS
        gone_N: Mask = np.isin(ordinals_N, self._ordinals_N)
        for ordinal in np.unique(ordinals_N[gone_N]).tolist():
            if ordinal in self._kept:
                of_it_N = ordinals_N == ordinal
                gone_N[of_it_N] = ~are_in(ids_N[of_it_N] & ((1 << INDEX_BITS) - 1), self._kept[ordinal])
        return gone_N


def _untold(ledger: Ledger) -> dict[str, int]:
    """The totals of those shards of which no part that is published as it is tells them."""
    told: dict[int, int] = {}
    kept: dict[int, int] = {}
    for entry in ledger.entries:
        for ordinal, total in entry.totals.items():
            told[ordinal] = max(total, told.get(ordinal, 0))
            if entry.fresh_N is None:
                kept[ordinal] = max(total, kept.get(ordinal, 0))
    return {str(ordinal): total for ordinal, total in told.items() if kept.get(ordinal) != total}


def _carry_over(store: Store, plan: Plan, parts: tuple[PartEntry, ...], superseded: Superseded) -> Iterator[PartEntry]:
    """The published parts without the rows that the plan supersedes."""
    for part in parts:
        if not superseded.may_touch(part):
            yield replace(part, staged=False)
            continue
        place, rows = read_published(store, part, ["id", "outcome"])
        kept_N = ~superseded.find(rows["id"].to_numpy())
        if kept_N.all():
            yield replace(part, staged=False)
        elif kept_N.any():
            yield _write_again(store, plan, place, rows, kept_N)


def _publish_parts(store: Store, plan: Plan, ledger: Ledger) -> Iterator[PartEntry]:
    """The plan's own parts, each row once."""
    for entry in ledger.entries:
        if entry.fresh_N is None:
            yield _as_published(store, plan, entry)
        elif entry.fresh_N.any():
            place = plan.place(entry.name)
            yield _write_again(store, plan, place, read_columns(store, place, ["id", "outcome"]), entry.fresh_N)


def _as_published(store: Store, plan: Plan, entry: Entry) -> PartEntry:
    place = plan.place(entry.name)
    # What is staged is copied, and an S3 ETag need not survive that.
    digest = digest_of(_read(store, place)) if plan.supersedes else store.digest(place)
    failed = {name: n for name, n in sorted(entry.outcomes.items()) if name != "ok"}
    return PartEntry(
        entry.name, entry.n_rows, entry.n_bytes, digest, entry.first_id, entry.last_id, failed, staged=plan.supersedes
    )


def _write_again(store: Store, plan: Plan, place: str, rows: pa.Table, kept_N: Mask) -> PartEntry:
    """Stage a part with some of the rows of another, under a name that its content gives."""
    data = rewrite_part(store, place, kept_N)
    digest = digest_of(data)
    name = f"{plan.tag}{AGAIN}{digest.removeprefix('sha256:')[:16]}.parquet"
    store.create(f"{STAGED}/{name}", data)
    ids_N = rows["id"].to_numpy()[kept_N]
    outcomes = Counter(rows["outcome"].filter(pa.array(kept_N)).to_pylist())
    failed = {name: n for name, n in sorted(outcomes.items()) if name != "ok"}
    return PartEntry(name, len(ids_N), len(data), digest, int(ids_N.min()), int(ids_N.max()), failed, staged=True)


def _read(store: Store, place: str) -> bytes:
    data = store.read(place)
    if data is None:
        raise StoreError(f"output: {store.uri}/{place} is missing")
    return data
