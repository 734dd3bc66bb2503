"""One output folder: whose it is, what is planned, what is done, what is published."""

import contextlib
import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from zsic.core.errors import IncompleteError, MismatchError, SpecError, StoreError
from zsic.core.fingerprint import canonical, differences, fingerprint
from zsic.core.spec import UpdateSpec
from zsic.storage.changes import Change, Changes
from zsic.storage.cleanup import settle
from zsic.storage.commit import commit
from zsic.storage.lease import Clock, Lease, describe_holder, take_lease
from zsic.storage.ledger import Ledger, read_ledger
from zsic.storage.mirror import Mirror
from zsic.storage.part import DamagedPartError, read_part, to_parquet
from zsic.storage.plan import Plan, PlanDraft, read_plan, require_plan
from zsic.storage.snapshot import Snapshot, last_snapshot, read_snapshot
from zsic.storage.store import Store
from zsic.storage.trial import creates_atomically

JOB = "_zsic/job.json"

_NO_EXTRAS = UpdateSpec()


class Listing(Protocol):
    """A source that can be listed, each time anew."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The sources there are, with `SOURCE_COLUMNS`."""

    def covers(self, uri: str) -> bool:
        """After a listing: whether it would have held this source, had it existed."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one run has to do."""

    plan: Plan | None
    """The open plan; None when the listing asked for nothing."""
    resumed: bool = False
    lease: Lease | None = None
    """Held, when there is a plan; the caller gives signs of life and ends it."""


class Output:
    """The commit protocol over one store.

    `check` before anything else; `begin` gives the open plan or makes one from a listing; `publish` ends it.
    `mirror` is the Delta table that follows the snapshots, where there is one or is to be one.  `clock` and `token`,
    the name of this run, are arguments so that a simulation can choose them.
    """

    def __init__(
        self, store: Store, mirror: Mirror | None = None, *, clock: Clock = time, token: str | None = None
    ) -> None:
        self.store = store
        self._mirror = mirror
        self._clock = clock
        self._token = token or uuid.uuid4().hex

    def read_job(self) -> dict[str, object] | None:
        """The fields of the job that owns the output; None if nobody does."""
        data = self.store.read(JOB)
        if data is None:
            return None
        fields: dict[str, object] = json.loads(data)["fields"]
        return fields

    def check(self, fields: Mapping[str, object]) -> str:
        """The fingerprint of the job; `MismatchError`, with the differing fields, if the output is another job's.

        Raises `SpecError` if the Delta table, where there is one or is to be one, cannot follow.
        """
        owner = self._check_owner(fields)
        if self._mirror is not None:
            self._mirror.check(last_snapshot(self.store))
        return owner

    def _check_owner(self, fields: Mapping[str, object]) -> str:
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
        ours = self._check_owner(fields)
        if not self.store.create(JOB, canonical({"fingerprint": ours, "fields": fields})):
            self._check_owner(fields)
        return ours

    @property
    def has_delta_table(self) -> bool:
        """Whether a Delta table follows the snapshots."""
        return self._mirror is not None and self._mirror.is_there

    def last_snapshot(self) -> Snapshot | None:
        """The table as it is published; None if nothing is."""
        return last_snapshot(self.store)

    def open_plan(self) -> Plan | None:
        """The plan that has no snapshot yet."""
        snapshot = last_snapshot(self.store)
        return read_plan(self.store, snapshot.sequence + 1 if snapshot else 1)

    def compare(self, listing: Listing, update: UpdateSpec = _NO_EXTRAS, *, retry: bool = True) -> Changes:
        """Hold a listing against what is known; lists as it is iterated.  Without `retry` no row is done again."""
        snapshot = last_snapshot(self.store)
        plans = [require_plan(self.store, n + 1) for n in range(snapshot.sequence if snapshot else 0)]
        return Changes(
            self.store,
            plans,
            snapshot,
            listing,
            retry=retry,
            retry_failed=update.retry_failed,
            covers=listing.covers if update.prune else None,
        )

    def begin(
        self,
        listing: Listing,
        fields: Mapping[str, object],
        source: Mapping[str, object],
        update: UpdateSpec = _NO_EXTRAS,
        *,
        retry: bool = True,
        tell: Callable[[str], None] = lambda text: None,
    ) -> Work:
        """Take the open plan up, else make one of what the listing of `source` asks for.

        The listing is touched only when no plan is open; the output is claimed, and the lease taken, when there is
        something to do.  An interrupted clean-up is finished first.  Raises `SpecError` if the open plan is one of
        another source, `MismatchError` as `claim` does, and `IncompleteError` while another run is at work.
        """
        settle(self.store, self._mirror)
        before, changes = last_snapshot(self.store), None
        if self.open_plan() is None:
            try:
                changes = iter(self.compare(listing, update, retry=retry))
                head = next(changes, None)
            except StoreError as error:
                if last_snapshot(self.store) == before:
                    raise
                raise IncompleteError(
                    f"another run published into {self.store.uri} while this one compared; run this command again"
                ) from error
            if head is None:
                return Work(None)
            changes = itertools.chain([head], changes)
        lease = self._enter(fields, tell)
        with self._giving_back(lease):
            # Another run may have planned or published something while this one was listing.
            if (plan := self.open_plan()) is not None:
                self._check_source(plan, source)
                return Work(plan, resumed=True, lease=lease)
            if changes is None or last_snapshot(self.store) != before:
                settle(self.store, self._mirror)
                changes = iter(self.compare(listing, update, retry=retry))
            plan = self._make_plan(changes, source)
            if plan is None:
                lease.end()
                return Work(None)
            return Work(plan, lease=lease)

    def _enter(self, fields: Mapping[str, object], tell: Callable[[str], None]) -> Lease:
        atomic = creates_atomically(self.store, self._token)
        self.claim(fields)
        return take_lease(self.store, describe_holder(self._token), atomic=atomic, clock=self._clock, tell=tell)

    @contextlib.contextmanager
    def _giving_back(self, lease: Lease) -> Iterator[None]:
        try:
            yield
        except Exception:  # whatever it is, the next run need not wait for this one
            lease.end()
            raise

    def _make_plan(self, changes: Iterable[Change], source: Mapping[str, object]) -> Plan | None:
        snapshot = last_snapshot(self.store)
        first, sequence = 0, 1
        if snapshot is not None:
            first = require_plan(self.store, snapshot.sequence).next_ordinal
            sequence = snapshot.sequence + 1
        draft = PlanDraft(self.store, sequence, first)
        for change in changes:
            change.enter(draft)
        plan = draft.close(source)
        if plan is not None:
            self._check_source(plan, source)
        return plan

    def _check_source(self, plan: Plan, source: Mapping[str, object]) -> None:
        if canonical(plan.source) != canonical(source):
            told = "; ".join(differences(source, plan.source, "source."))
            raise SpecError(
                f"an earlier run into {self.store.uri} is not finished, and it had another source: {told}. "
                "Finish it with the command that began it; then run this one"
            )

    def write_part(self, plan: Plan, table: pa.Table, metadata: Mapping[str, object], task: str) -> str:
        """Put rows of a plan as one part, under a name that a second attempt of `task` reuses.  Returns the name."""
        table = table.sort_by("id")
        data = to_parquet(table, metadata)
        name = f"{plan.tag}{task}.parquet"
        if not self.store.create(plan.place(name), data) and not self._holds(plan.place(name), table):
            # The first attempt was given other rows; both parts stay, and the ledger tells what is there.
            name = f"{plan.tag}{task}-{hashlib.sha256(data).hexdigest()[:8]}.parquet"
            self.store.create(plan.place(name), data)
        if read_snapshot(self.store, plan.sequence) is not None:
            self._take_back(plan, name)
        return name

    def _holds(self, place: str, table: pa.Table) -> bool:
        """Whether a part has just these rows."""
        with contextlib.suppress(FileNotFoundError):
            return bool(read_part(self.store, place, 0).ids_N.tolist() == table["id"].to_pylist())
        return False

    def _take_back(self, plan: Plan, name: str) -> None:
        """Delete a part that came too late: its plan was published without it."""
        snapshot = last_snapshot(self.store)
        if snapshot is not None and all(part.name != name for part in snapshot.parts):
            self.store.delete(plan.place(name))

    def read_ledger(self, plan: Plan) -> Ledger:
        """What exists of an open plan."""
        try:
            return read_ledger(self.store, plan)
        except DamagedPartError as error:
            raise StoreError(
                f"output: {error}; it is not published yet: delete it and run again, and its images are classified anew"
            ) from error

    def publish(self, plan: Plan, fingerprint: str, ledger: Ledger | None = None) -> Snapshot:
        """Recount a plan from its parts, create its snapshot, and clean up.

        A plan that another run has published meanwhile is published.
        """
        snapshot = self.published(plan)
        if snapshot is None:
            try:
                snapshot = commit(self.store, plan, ledger or self.read_ledger(plan), fingerprint)
            except (FileNotFoundError, IncompleteError, StoreError) as error:
                # Whoever published it may have cleaned up what was being counted here.
                snapshot = self.published(plan)
                if snapshot is None and isinstance(error, FileNotFoundError):
                    raise StoreError(f"output: {self.store.uri}/{error} has gone while it was counted") from error
                if snapshot is None:
                    raise
        settle(self.store, self._mirror)
        return snapshot

    def published(self, plan: Plan) -> Snapshot | None:
        """The snapshot of a plan, if it has one already."""
        snapshot = read_snapshot(self.store, plan.sequence)
        return snapshot if snapshot is not None and snapshot.plan_digest == plan.digest else None
