"""The commit point: a snapshot lists exactly the parts of one finished plan, and names its parent.

    OUT/_zsic/snapshot/00000001.json

It is created last, atomically, after a recount; two drivers cannot both create it.  The parts of all snapshots
together are the table.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.fingerprint import canonical
from zsic.storage.ledger import DamagedPartError, Ledger, read_ledger
from zsic.storage.plan import read_plan
from zsic.storage.store import Store

FOLDER = "_zsic/snapshot"


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One part, as the snapshot vouches for it."""

    name: str
    n_rows: int
    n_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The published rows of one plan."""

    sequence: int
    parent: str | None
    """SHA-256 of the previous snapshot; None for the first."""
    plan_digest: str
    fingerprint: str
    parts: tuple[PartEntry, ...]
    n_sources: int
    n_rows: int
    outcomes: dict[str, int]


def snapshot_name(sequence: int) -> str:
    """The name of the n-th snapshot, counted from 1."""
    return f"{FOLDER}/{sequence:08d}.json"


def read_snapshots(store: Store) -> list[Snapshot]:
    """All snapshots of an output, oldest first.  Raises `StoreError` if one is missing or does not fit its parent."""
    snapshots: list[Snapshot] = []
    parent = None
    while (data := store.read(snapshot_name(len(snapshots) + 1))) is not None:
        body = json.loads(data)
        body["parts"] = tuple(PartEntry(**part) for part in body["parts"])
        snapshot = Snapshot(**body)
        if snapshot.parent != parent:
            raise StoreError(
                f"output: {store.uri}/{snapshot_name(len(snapshots) + 1)} does not follow the one before it; "
                "the folder holds pieces of different outputs"
            )
        snapshots.append(snapshot)
        parent = hashlib.sha256(data).hexdigest()
    return snapshots


def commit(store: Store, ledger: Ledger, fingerprint: str) -> Snapshot:
    """Publish a finished plan.

    Raises `IncompleteError` if rows are missing or doubled, and `StoreError` if another driver published
    something else under this number.
    """
    plan = ledger.plan
    if ledger.n_doubled:
        raise IncompleteError(
            f"{ledger.n_doubled} rows of {store.uri} exist twice, as when two runs write at once.  When no run is "
            f"under way, delete {_listed(ledger.doubling_parts)} and run again: what only they held is classified anew"
        )
    if not ledger.whole:
        raise IncompleteError(
            f"{plan.n_sources - ledger.n_sources_done} of {plan.n_sources} sources are not done; run the same "
            "command again to resume"
        )
    previous = store.read(snapshot_name(plan.sequence - 1)) if plan.sequence > 1 else None
    snapshot = Snapshot(
        sequence=plan.sequence,
        parent=hashlib.sha256(previous).hexdigest() if previous is not None else None,
        plan_digest=plan.digest,
        fingerprint=fingerprint,
        parts=tuple(PartEntry(name, n_rows, n_bytes, store.digest(name)) for name, n_rows, n_bytes in ledger.parts),
        n_sources=plan.n_sources,
        n_rows=ledger.n_rows,
        outcomes=dict(sorted(ledger.outcomes.items())),
    )
    if not store.create(snapshot_name(plan.sequence), canonical(asdict(snapshot))):
        raise StoreError(
            f"output: another run published {store.uri}/{snapshot_name(plan.sequence)} first; nothing is lost: "
            "run `zsic verify` on the output"
        )
    return snapshot


def find_differences(store: Store) -> Iterator[str]:
    """Recount an output against its snapshots, and say in words what differs.

    Every part of every snapshot must be there with its size and digest; its rows, counted anew from the ids, must
    be exactly those of its plan; and no part may stand beside them but those of a run that is still open.
    """
    snapshots = read_snapshots(store)
    published = {part.name for snapshot in snapshots for part in snapshot.parts}
    present = dict(store.list())
    for snapshot in snapshots:
        yield from _part_differences(store, snapshot, present)
        plan = read_plan(store, snapshot.sequence)
        if plan is None or plan.digest != snapshot.plan_digest:
            yield f"snapshot {snapshot.sequence}: its plan is gone or is another one"
            continue
        if any(part.name not in present for part in snapshot.parts):
            continue
        try:
            ledger = read_ledger(store, plan)
        except DamagedPartError as error:
            yield f"snapshot {snapshot.sequence}: {error}"
            continue
        if ledger.n_rows != snapshot.n_rows:
            yield f"snapshot {snapshot.sequence}: {ledger.n_rows} rows, {snapshot.n_rows} published"
        if ledger.n_doubled:
            yield f"snapshot {snapshot.sequence}: {ledger.n_doubled} rows exist twice"
        if missing := plan.n_sources - ledger.n_sources_done:
            yield f"snapshot {snapshot.sequence}: {missing} of {plan.n_sources} sources are not whole"
        if ledger.outcomes != Counter(snapshot.outcomes):
            yield f"snapshot {snapshot.sequence}: outcomes {dict(ledger.outcomes)}, {snapshot.outcomes} published"
    open_plan = read_plan(store, len(snapshots) + 1)
    for name in present:
        if not name.endswith(".parquet") or name in published:
            continue
        if open_plan is None or not name.startswith(open_plan.tag):
            yield f"{name}: belongs to no snapshot"
    if open_plan is not None:
        try:
            ledger = read_ledger(store, open_plan)
        except DamagedPartError as error:
            yield f"the open run: {error}"
            return
        yield (
            f"a run is open: {ledger.n_sources_done} of {open_plan.n_sources} sources done; run the same command "
            "again to finish it"
        )


def _part_differences(store: Store, snapshot: Snapshot, present: dict[str, int]) -> Iterator[str]:
    for part in snapshot.parts:
        if part.name not in present:
            yield f"{part.name}: is missing ({part.n_rows} rows)"
        elif present[part.name] != part.n_bytes:
            yield f"{part.name}: has {present[part.name]} bytes, {part.n_bytes} published"
        elif store.digest(part.name) != part.digest:
            yield f"{part.name}: its content has changed"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
