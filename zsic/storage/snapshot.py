"""The commit point: a snapshot lists exactly the parts that are the table, and names its parent.

    OUT/_zsic/snapshot/00000001.json

It is created last, atomically, after a recount; two drivers cannot both create it.  What it supersedes is cleaned
up afterwards, from the snapshot as it is stored, and by whoever comes by (`settle`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from zsic.core.errors import StoreError
from zsic.storage.part import STAGED, read_columns
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
    if data is None:
        return None
    try:
        return parse_snapshot(data)
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"output: {store.uri}/{snapshot_name(sequence)} is no snapshot of this version: {error}"
        ) from error


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
        snapshot = parse_snapshot(data)
        if snapshot.parent != parent:
            raise StoreError(
                f"output: {store.uri}/{snapshot_name(len(snapshots) + 1)} does not follow the one before it; "
                "the folder holds pieces of different outputs"
            )
        snapshots.append(snapshot)
        parent = hashlib.sha256(data).hexdigest()
    return snapshots


def parse_snapshot(data: bytes) -> Snapshot:
    """Read what `commit` wrote."""
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


def count_outcomes(parts: Iterable[PartEntry]) -> dict[str, int]:
    """Rows of some parts by outcome."""
    parts = list(parts)
    failed: Counter[str] = Counter()
    for part in parts:
        failed.update(part.failed)
    n_rows = sum(part.n_rows for part in parts)
    return dict(sorted((Counter(ok=n_rows - failed.total()) + failed).items()))
