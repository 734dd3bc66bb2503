"""One output folder: whose it is, what is planned, what is done, what is published."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from zsic.core.errors import MismatchError, SpecError, StoreError
from zsic.core.fingerprint import canonical, differences, fingerprint
from zsic.storage.ledger import DamagedPartError, Ledger, read_ledger
from zsic.storage.plan import KnownSources, Plan, read_plan, write_plan
from zsic.storage.snapshot import Snapshot, commit, read_snapshots
from zsic.storage.store import Store

JOB = "_zsic/job.json"


@dataclass(frozen=True, slots=True)
class Increment:
    """The work of one run."""

    plan: Plan | None
    """The open plan; None when the listing held nothing new."""
    resumed: bool = False
    n_changed: int = 0
    """Sources that are known in another version; their old rows stay."""


class Output:
    """The commit protocol over one store.

    `check` before anything else; `next_plan` gives the open plan or makes one from a listing; `publish` ends it.
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

    def check(self, fields: Mapping[str, object]) -> str:
        """The fingerprint of the job; `MismatchError`, with the differing fields, if the output is another job's."""
        theirs = self.read_job()
        if theirs is not None and canonical(theirs) != canonical(fields):
            told = "\n  ".join(differences(fields, theirs))
            raise MismatchError(
                f"{self.store.uri} was written by another job ({fingerprint(theirs)}; this one is "
                f"{fingerprint(fields)}):\n  {told}\nChoose another output, or go back to those values."
            )
        return fingerprint(fields)

    def claim(self, fields: Mapping[str, object]) -> str:
        """Make the output ours, or see that it is.  Returns the fingerprint of the job."""
        self.check(fields)
        ours = fingerprint(fields)
        if not self.store.create(JOB, canonical({"fingerprint": ours, "fields": fields})):
            self.check(fields)
        return ours

    def read_snapshots(self) -> list[Snapshot]:
        """All that is published, oldest first."""
        return read_snapshots(self.store)

    def open_plan(self) -> Plan | None:
        """The plan that has no snapshot yet."""
        return read_plan(self.store, len(read_snapshots(self.store)) + 1)

    def split_new(self, listing: Iterable[pa.RecordBatch]) -> "NewSources":
        """The sources of a listing that no earlier plan holds."""
        plans = [self._plan(snapshot.sequence) for snapshot in read_snapshots(self.store)]
        return NewSources(KnownSources(self.store, plans), listing)

    def next_plan(
        self, listing: Iterable[pa.RecordBatch], fields: Mapping[str, object], source: Mapping[str, object]
    ) -> Increment:
        """The open plan, else a new one for what is new in the listing of `source`.

        The listing is touched only when no plan is open; the output is claimed when something new is met.  Raises
        `SpecError` if the open plan is one of another source, and `MismatchError` as `claim` does.
        """
        snapshots = read_snapshots(self.store)
        sequence = len(snapshots) + 1
        plan = read_plan(self.store, sequence)
        if plan is not None:
            self.claim(fields)
            if canonical(plan.source) != canonical(source):
                told = "; ".join(differences(source, plan.source, "source."))
                raise SpecError(
                    f"an earlier run into {self.store.uri} is not finished, and it had another source: {told}. "
                    "Finish it with the command that began it; then run this one"
                )
            return Increment(plan, resumed=True)
        first = 0
        if snapshots:
            last = self._plan(snapshots[-1].sequence)
            first = last.first_ordinal + last.n_sources
        new = self.split_new(listing)
        batches = iter(new)
        head = next(batches, None)
        if head is None:
            return Increment(None, n_changed=new.n_changed)
        self.claim(fields)
        plan = write_plan(self.store, sequence, first, itertools.chain([head], batches), source)
        return Increment(plan, n_changed=new.n_changed)

    def read_ledger(self, plan: Plan) -> Ledger:
        """What exists of an open plan."""
        try:
            return read_ledger(self.store, plan)
        except DamagedPartError as error:
            raise StoreError(
                f"output: {error}; it is not published yet: delete it and run again, and its images are classified anew"
            ) from error

    def publish(self, plan: Plan, fingerprint: str) -> Snapshot:
        """Recount a plan from its parts and create its snapshot."""
        return commit(self.store, self.read_ledger(plan), fingerprint)

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
