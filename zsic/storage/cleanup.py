"""After a snapshot exists: bringing the folder that everybody reads in line with it."""

from zsic.storage.mirror import Mirror
from zsic.storage.part import STAGED, sequence_of
from zsic.storage.snapshot import Snapshot, last_snapshot
from zsic.storage.store import Store


def settle(store: Store, mirror: Mirror | None = None) -> None:
    """Bring the folder in line with the last snapshot, so that `OUT/*.parquet` is the table; whoever, whenever.

    Staged parts are copied to their places first, then the Delta table follows, then superseded ones are deleted,
    then the staged: so every file that a reader is told of is there.  Only parts of plans that are published are
    touched: the parts of a later one have later numbers.
    """
    snapshot = last_snapshot(store)
    while snapshot is not None:
        _settle(store, snapshot, mirror)
        # A clean-up that was overtaken may have brought back what a later one had deleted.
        following = last_snapshot(store)
        if following is None or following.sequence == snapshot.sequence:
            return
        snapshot = following


def _settle(store: Store, snapshot: Snapshot, mirror: Mirror | None) -> None:
    published = {part.name: part for part in snapshot.parts}
    present = {name for name, _ in store.list()}
    staged = {name.rpartition("/")[2] for name, _ in store.list(STAGED)}
    for part in snapshot.parts:
        if part.staged and part.name not in present:
            data = store.read(f"{STAGED}/{part.name}")
            if data is not None:  # else another clean-up was faster
                store.create(part.name, data)
    if mirror is not None:
        mirror.follow(snapshot)
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
