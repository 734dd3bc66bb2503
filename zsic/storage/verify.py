"""Is an output what its snapshots say?  Recounts it, and says in words what differs; reads only."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow.compute as pc

from zsic.core.errors import StoreError
from zsic.storage.ledger import Ledger, read_ledger
from zsic.storage.part import STAGED, DamagedPartError, Mask, digest_of, read_part, sequence_of
from zsic.storage.plan import Plan, read_piece, read_plan
from zsic.storage.snapshot import PartEntry, Snapshot, read_snapshots
from zsic.storage.store import Store


def find_differences(store: Store) -> Iterator[str]:
    """Recount an output against its snapshots.

    Every part of the last snapshot must be there with its size and digest; its rows, counted anew from the ids,
    must be exactly those of all plans; and nothing may lie beside them but the parts of a run that is still open.
    """
    snapshots = read_snapshots(store)
    last = snapshots[-1] if snapshots else None
    if last is not None:
        yield from _table_differences(store, snapshots)
    yield from _leftovers(store, last)
    open_plan = read_plan(store, len(snapshots) + 1)
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


def _table_differences(store: Store, snapshots: list[Snapshot]) -> Iterator[str]:
    plans = []
    for snapshot in snapshots:
        plan = read_plan(store, snapshot.sequence)
        if plan is None or plan.digest != snapshot.plan_digest:
            yield f"snapshot {snapshot.sequence}: its plan is gone or is another one"
            return
        plans.append(plan)
    last = snapshots[-1]
    places = dict(_locate(store, last))
    for part in last.parts:
        yield from _part_differences(store, part, places)
    if len(places) < len(last.parts):
        return
    try:
        yield from _count_differences(store, last, plans, places)
    except DamagedPartError as error:
        yield f"snapshot {last.sequence}: {error}"
    except FileNotFoundError as error:
        yield f"snapshot {last.sequence}: {error} went while it was counted; a run may have replaced it, verify again"


def _locate(store: Store, snapshot: Snapshot) -> Iterator[tuple[str, tuple[str, int]]]:
    """Where each part lies, and its bytes; without those that are nowhere."""
    present = dict(store.list())
    staged = dict(store.list(STAGED))
    for part in snapshot.parts:
        aside = f"{STAGED}/{part.name}"
        if part.name in present:
            yield part.name, (part.name, present[part.name])
        elif part.staged and aside in staged:
            yield part.name, (aside, staged[aside])


def _part_differences(store: Store, part: PartEntry, places: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    if part.name not in places:
        yield f"{part.name}: is missing ({part.n_rows} rows)"
        return
    place, n_bytes = places[part.name]
    if n_bytes != part.n_bytes:
        yield f"{part.name}: has {n_bytes} bytes, {part.n_bytes} published"
    elif _digest(store, place, part.digest.partition(":")[0]) != part.digest:
        yield f"{part.name}: its content has changed"


def _digest(store: Store, place: str, kind: str) -> str:
    """The digest of a part, of the kind that was published."""
    try:
        return digest_of(store.read(place) or b"") if kind == "sha256" else store.digest(place)
    except FileNotFoundError:
        return "gone"


def _count_differences(
    store: Store, last: Snapshot, plans: list[Plan], places: Mapping[str, tuple[str, int]]
) -> Iterator[str]:
    ledger = Ledger(0, plans[-1].next_ordinal)
    for plan in plans:
        position = plan.first_added
        for piece in plan.added:
            kinds = read_piece(store, piece, ["kind"])["kind"]
            ledger.set_loose(position, pc.equal(kinds, "image").to_numpy())
            position += piece.n_sources
    for part in last.parts:
        place, n_bytes = places[part.name]
        facts = read_part(store, part.name, n_bytes, place=place)
        failed = {name: n for name, n in sorted(facts.outcomes.items()) if name != "ok"}
        if (len(facts.ids_N), failed) != (part.n_rows, part.failed):
            yield f"{part.name}: has {len(facts.ids_N)} rows, failed {failed}; {part.n_rows}, {part.failed} published"
        try:
            ledger.add(facts)
        except DamagedPartError:
            raise
        except StoreError as error:
            yield str(error)
    for ordinal, total in last.totals.items():
        ledger.tell_total(int(ordinal), total)
    live_N = _live(store, plans)
    if ledger.n_doubled:
        yield f"snapshot {last.sequence}: {ledger.n_doubled} rows exist twice"
    if missing := int(live_N.sum()) - ledger.n_sources_done:
        yield f"snapshot {last.sequence}: {missing} of {int(live_N.sum())} sources are not whole"
    if dropped := sum(ledger.is_begun(int(position)) for position in np.flatnonzero(~live_N)):
        yield f"snapshot {last.sequence}: {dropped} sources have rows although they were pruned"
    if sum(entry.n_rows for entry in ledger.entries) != last.n_rows:
        yield f"snapshot {last.sequence}: {sum(entry.n_rows for entry in ledger.entries)} rows, {last.n_rows} published"


def _live(store: Store, plans: list[Plan]) -> Mask:
    """Which sources have rows, by ordinal: all but those that were pruned."""
    live_N = np.ones(plans[-1].next_ordinal, bool)
    for plan in plans:
        for piece in plan.dropped:
            live_N[read_piece(store, piece, ["ordinal"])["ordinal"].to_numpy()] = False
    return live_N


def _leftovers(store: Store, last: Snapshot | None) -> Iterator[str]:
    """What lies in the output without belonging to it."""
    sequence = last.sequence if last is not None else 0
    published = {part.name for part in last.parts} if last is not None else set()
    open_plan = read_plan(store, sequence + 1)
    for place, _ in (*store.list(), *store.list(STAGED)):
        name = place.rpartition("/")[2]
        if place != name and name in published:
            yield f"{place}: is left from an interrupted clean-up; the next run finishes it"
            continue
        is_open = open_plan is not None and name.startswith(open_plan.tag)
        if not name.endswith(".parquet") or name in published or is_open:
            continue
        if (of := sequence_of(name)) is not None and of <= sequence:
            yield f"{place}: is superseded, and left from an interrupted clean-up; the next run finishes it"
        else:
            yield f"{place}: belongs to no snapshot"
