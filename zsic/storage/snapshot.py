"""The commit point: a snapshot lists exactly the parts that are the table, and names its parent.

    OUT/_zsic/snapshot/00000001.json

It is created last, atomically, after a recount; two drivers cannot both create it.  What it supersedes is cleaned
up afterwards, from the snapshot as it is stored, and by whoever comes by (`settle`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain

import numpy as np
import pyarrow as pa

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.fingerprint import canonical
from zsic.core.schema import INDEX_BITS
from zsic.storage.ledger import Entry, Ledger, Runs, are_in
from zsic.storage.part import AGAIN, STAGED, Ids, Mask, digest_of, read_columns, rewrite_part, sequence_of
from zsic.storage.plan import Plan, read_piece
from zsic.storage.store import Store

FOLDER = "_zsic/snapshot"


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One part, as the snapshot vouches for it."""

    name: str
    n_rows: int
    n_bytes: int
    digest: str
    first_id: int
    last_id: int
    failed: dict[str, int] = field(default_factory=dict)
    """Rows by outcome other than ok."""
    staged: bool = False
    """It was published out of readers' sight, and is moved to its place after that."""


@dataclass(frozen=True, slots=True)
class Increment:
    """What one plan brought, in numbers."""

    n_sources: int
    n_rows: int
    outcomes: dict[str, int]
    n_superseded: int = 0
    """Rows of before that went."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole table after one plan."""

    sequence: int
    parent: str | None
    """SHA-256 of the previous snapshot; None for the first."""
    plan_digest: str
    fingerprint: str
    parts: tuple[PartEntry, ...]
    n_rows: int
    increment: Increment
    totals: dict[str, int] = field(default_factory=dict)
    """Rows of the shards, by ordinal, that no part tells any more: the row that told it was there twice."""

    @property
    def outcomes(self) -> dict[str, int]:
        """Rows of the table by outcome."""
        return count_outcomes(self.parts)


def snapshot_name(sequence: int) -> str:
    """The name of the n-th snapshot, counted from 1."""
    return f"{FOLDER}/{sequence:08d}.json"


def read_snapshot(store: Store, sequence: int) -> Snapshot | None:
    """Read the n-th snapshot; None if there is none yet."""
    data = store.read(snapshot_name(sequence))
    return None if data is None else _parse(data)


def last_snapshot(store: Store) -> Snapshot | None:
    """The table as it is published; None if nothing is.

    A listing may lag behind where reading does not, so what follows the last one listed is asked for.
    """
    names = [name for name, _ in store.list(FOLDER)]
    sequence = int(names[-1].rpartition("/")[2].partition(".")[0]) if names else 0
    last = read_snapshot(store, sequence) if sequence else None
    while (following := read_snapshot(store, sequence + 1)) is not None:
        last, sequence = following, sequence + 1
    return last


def read_snapshots(store: Store) -> list[Snapshot]:
    """All snapshots of an output, oldest first.  Raises `StoreError` if one does not fit its parent."""
    snapshots: list[Snapshot] = []
    parent = None
    while (data := store.read(snapshot_name(len(snapshots) + 1))) is not None:
        snapshot = _parse(data)
        if snapshot.parent != parent:
            raise StoreError(
                f"output: {store.uri}/{snapshot_name(len(snapshots) + 1)} does not follow the one before it; "
                "the folder holds pieces of different outputs"
            )
        snapshots.append(snapshot)
        parent = hashlib.sha256(data).hexdigest()
    return snapshots


def _parse(data: bytes) -> Snapshot:
    body = json.loads(data)
    body["parts"] = tuple(PartEntry(**part) for part in body["parts"])
    body["increment"] = Increment(**body["increment"])
    return Snapshot(**body)


def place_of(store: Store, part: PartEntry) -> str:
    """Where a published part lies now.  Raises `StoreError` if it is nowhere."""
    # In its place, or not there yet, or moved there between the two questions.
    for place in (part.name, f"{STAGED}/{part.name}", part.name) if part.staged else (part.name,):
        try:
            store.digest(place)
        except FileNotFoundError:
            continue
        return place
    raise StoreError(f"output: {store.uri}/{part.name} is missing; `zsic verify` tells what else is")


def read_published(store: Store, part: PartEntry, columns: list[str]) -> tuple[str, pa.Table]:
    """Where a published part lies, and some of its columns.  Raises `StoreError` if it is gone."""
    try:
        place = place_of(store, part)
        return place, read_columns(store, place, columns)
    except FileNotFoundError:
        # A clean-up moved it while it was looked for; it moves once.
        place = place_of(store, part)
        try:
            return place, read_columns(store, place, columns)
        except FileNotFoundError as error:
            raise StoreError(f"output: {store.uri}/{place} went while it was read") from error


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
    before = _parse(parent).parts if parent is not None else ()
    superseded = Superseded(store, plan)
    carried = tuple(_carry_over(store, plan, before, superseded))
    brought = tuple(_publish_parts(store, plan, ledger))
    totals = {} if parent is None else _parse(parent).totals
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


def count_outcomes(parts: Iterable[PartEntry]) -> dict[str, int]:
    """Rows of some parts by outcome."""
    parts = list(parts)
    failed: Counter[str] = Counter()
    for part in parts:
        failed.update(part.failed)
    n_rows = sum(part.n_rows for part in parts)
    return dict(sorted((Counter(ok=n_rows - failed.total()) + failed).items()))


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


def settle(store: Store) -> None:
    """Bring the folder in line with the last snapshot, so that `OUT/*.parquet` is the table; whoever, whenever.

    Staged parts are copied to their places first, then superseded ones are deleted, then the staged.  Only parts of
    plans that are published are touched: the parts of a later one have later numbers.
    """
    snapshot = last_snapshot(store)
    while snapshot is not None:
        _settle(store, snapshot)
        # A clean-up that was overtaken may have brought back what a later one had deleted.
        following = last_snapshot(store)
        if following is None or following.sequence == snapshot.sequence:
            return
        snapshot = following


def _settle(store: Store, snapshot: Snapshot) -> None:
    published = {part.name: part for part in snapshot.parts}
    present = {name for name, _ in store.list()}
    staged = {name.rpartition("/")[2] for name, _ in store.list(STAGED)}
    for part in snapshot.parts:
        if part.staged and part.name not in present:
            data = store.read(f"{STAGED}/{part.name}")
            if data is not None:  # else another clean-up was faster
                store.create(part.name, data)
    for name in sorted(present):
        if _is_closed(name, snapshot) and name not in published:
            store.delete(name)
    for name in sorted(staged):
        if _is_closed(name, snapshot):
            store.delete(f"{STAGED}/{name}")


def _is_closed(name: str, snapshot: Snapshot) -> bool:
    """Whether a name is that of a part of a plan that is published."""
    sequence = sequence_of(name)
    return sequence is not None and sequence <= snapshot.sequence
