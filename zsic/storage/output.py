"""One output folder: whose it is, what is planned, what is done, what is published."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from zsic.core.errors import MismatchError, StoreError
from zsic.core.fingerprint import canonical, differences, fingerprint
from zsic.storage.ledger import Ledger, read_ledger
from zsic.storage.plan import KnownSources, Plan, read_plan, write_plan
from zsic.storage.snapshot import Snapshot, commit, read_snapshots
from zsic.storage.store import Store

JOB = "_zsic/job.json"


@dataclass(frozen=True, slots=True)
class Increment:
    """The work of one run: an open plan, and what of it exists already."""

    plan: Plan
    resumed: bool
    n_changed: int = 0
    """Sources that are known in another version; their old rows stay."""


class Output:
    """The commit protocol over one store.

    `claim` before anything else; `next_plan` gives the open plan or makes one from a listing; `publish` ends it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def read_job(self) -> dict[str, object] | None:
        """The fields of the job that owns the output; None if nobody does."""
        data = self.store.read(JOB)
        if data is None:
            return None
        fields: dict[str, object] = json.loads(data)["fields"]
        return fields

    def check(self, fields: Mapping[str, object]) -> None:
        """Raise `MismatchError`, with the differing fields, if the output belongs to another job."""
        theirs = self.read_job()
        if theirs is not None and canonical(theirs) != canonical(fields):
            told = "\n  ".join(differences(fields, theirs))
            raise MismatchError(
                f"{self.store.uri} was written by another job ({fingerprint(theirs)}; this one is "
                f"{fingerprint(fields)}):\n  {told}\nChoose another output, or go back to those values."
            )

    def claim(self, fields: Mapping[str, object]) -> str:
        """Make the output ours, or see that it is.  Returns the fingerprint of the job."""
        self.check(fields)
        ours = fingerprint(fields)
        if not self.store.create(JOB, canonical({"fingerprint": ours, "fields": fields})):
            self.check(fields)
        return ours

    def open_plan(self) -> Plan | None:
        """The plan that has no snapshot yet."""
        return read_plan(self.store, len(read_snapshots(self.store)) + 1)

    def split_new(self, listing: Iterable[pa.RecordBatch]) -> "NewSources":
        """The sources of a listing that no earlier plan holds."""
        plans = [self._plan(snapshot.sequence) for snapshot in read_snapshots(self.store)]
        return NewSources(KnownSources(self.store, plans), listing)

    def next_plan(self, listing: Iterable[pa.RecordBatch]) -> Increment | None:
        """The open plan, else a new one for what is new in the listing, else None.

        The listing is touched only when no plan is open.
        """
        snapshots = read_snapshots(self.store)
        sequence = len(snapshots) + 1
        plan = read_plan(self.store, sequence)
        if plan is not None:
            return Increment(plan, resumed=True)
        first = 0
        if snapshots:
            last = self._plan(snapshots[-1].sequence)
            first = last.first_ordinal + last.n_sources
        new = self.split_new(listing)
        plan = write_plan(self.store, sequence, first, new)
        return None if plan is None else Increment(plan, False, new.n_changed)

    def read_ledger(self, plan: Plan) -> Ledger:
        """What exists of a plan."""
        return read_ledger(self.store, plan)

    def publish(self, plan: Plan, fingerprint: str) -> Snapshot:
        """Recount a plan from its parts and create its snapshot."""
        return commit(self.store, read_ledger(self.store, plan), fingerprint)

    def _plan(self, sequence: int) -> Plan:
        plan = read_plan(self.store, sequence)
        if plan is None:
            raise StoreError(f"output: {self.store.uri} has lost the plan {sequence}; it cannot be continued")
        return plan


class NewSources:
    """Iterates over the batches of new sources; counts the others on the way."""

    def __init__(self, known: KnownSources, listing: Iterable[pa.RecordBatch]) -> None:
        self._known = known
        self._listing = listing
        self.n_listed = 0
        self.n_changed = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._listing:
            self.n_listed += batch.num_rows
            new, n_changed = self._known.split(batch)
            self.n_changed += n_changed
            if new.num_rows:
                yield new
