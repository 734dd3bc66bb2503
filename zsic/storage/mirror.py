"""The Delta table over an output: its last snapshot once more, for readers that know Delta and nothing of zsic.

    OUT/_delta_log/00000000000000000000.json

The snapshot stays the commit point; the table follows it, in one commit that adds the parts it lacks, removes those
that are superseded, and sets the number of the snapshot as the version of a Delta transaction.  Whoever comes second,
late or again finds that version there and changes nothing.

The table lies in the output's own folder, for there its files have relative paths: of absolute ones, which a table
elsewhere would need, deltalake makes paths below the table's folder (1.6, measured), and so reads nothing.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from zsic.core.errors import SpecError, StoreError
from zsic.core.spec import StoreSpec
from zsic.storage.access import PassingError, ReadError, persist
from zsic.storage.delta import (
    LOG,
    explain,
    list_paths,
    location,
    open_delta,
    require_deltalake,
    storage_options,
)
from zsic.storage.part import sequence_of
from zsic.storage.snapshot import PartEntry, Snapshot, place_of, snapshot_name
from zsic.storage.store import Store

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import AddAction, CommitProperties, RemoveAction


class Mirror:
    """The Delta table of one output.  Once there is one, every later run keeps it in line, asked to or not.

    For superseded parts are deleted, and a table that was left behind would list files that are gone.
    """

    def __init__(self, store: Store, spec: StoreSpec, *, wanted: bool = False) -> None:
        """Of the output in `store`; `wanted` begins a table where there is none."""
        self._store = store
        self._spec = spec
        self._wanted = wanted

    def check(self, last: Snapshot | None) -> None:
        """Raise `SpecError` where the table could not be written, or is not ours; before anything has run."""
        table = self._open() if self._is_due() else None
        if table is None:
            return
        self._check_ours(table)
        parts = last.parts if last is not None else ()
        if parts and not _is_same(table.schema(), theirs := _to_delta(self._read_schema(parts[0]))):
            raise self._refuse(f"has other columns than the output ({', '.join(f.name for f in theirs.fields)})")

    def follow(self, snapshot: Snapshot) -> None:
        """Bring the table in line with a snapshot whose parts all lie in their places.

        Nothing happens if it holds a later one.  Raises `StoreError` if it cannot be written, and `SpecError` if it
        is not ours.
        """
        if not self._is_due():
            return
        try:
            persist(self._spec, lambda: self._try(snapshot))
        except ReadError as error:
            raise StoreError(f"output.publish: the Delta table in {self._store.uri} is not written: {error}") from error

    def find_differences(self, snapshot: Snapshot) -> Iterator[str]:
        """What the table says otherwise than a snapshot; nothing if there is no table."""
        table = self._open() if self._is_due() else None
        if table is None:
            return
        try:
            self._check_ours(table)
        except SpecError as error:
            yield str(error)
            return
        version = table.transaction_version(self._name()) or 0
        if version < snapshot.sequence:
            yield f"the Delta table holds snapshot {version} of {snapshot.sequence}; the next run brings it in line"
            return
        listed, published = list_paths(table), {part.name: part.n_bytes for part in snapshot.parts}
        if listed != published:
            differing = sorted(name for name, _ in listed.items() ^ published.items())
            yield (
                f"the Delta table lists other parts than snapshot {snapshot.sequence} ({differing[0]} and "
                f"{len(set(differing)) - 1} more); the next run brings it in line"
            )

    @property
    def is_there(self) -> bool:
        """Whether there is a table, be it ours or not."""
        return next(self._store.list(LOG), None) is not None

    def _is_due(self) -> bool:
        """Whether there is a table, or is to be one.  Raises `SpecError` if nothing can be done about it here."""
        if not (self._wanted or self.is_there):
            return False
        require_deltalake("output.publish" if self._wanted else f"the Delta table in {self._store.uri}")
        return True

    def _open(self) -> "DeltaTable | None":
        from deltalake.exceptions import DeltaError

        def attempt() -> "DeltaTable | None":
            try:
                return open_delta(self._store.uri, self._spec)
            except (DeltaError, OSError) as error:
                raise PassingError(explain(error)) from error

        try:
            return persist(self._spec, attempt)
        except ReadError as error:
            raise StoreError(f"output.publish: the Delta table in {self._store.uri} cannot be read: {error}") from error

    def _try(self, snapshot: Snapshot) -> None:
        """Look at the table, and commit what it lacks.  Raises `PassingError` where another look is needed."""
        from deltalake.exceptions import DeltaError

        try:
            table = open_delta(self._store.uri, self._spec)
            if table is None:
                self._create(snapshot)
                return
            self._check_ours(table)
            version = table.transaction_version(self._name()) or 0
            listed = list_paths(table)
            names = {part.name for part in snapshot.parts}
            lacking = [part for part in snapshot.parts if part.name not in listed]
            gone = {name: n_bytes for name, n_bytes in listed.items() if name not in names}
            if version > snapshot.sequence or (version == snapshot.sequence and not lacking and not gone):
                return
            table.create_write_transaction(
                [*map(_add, lacking), *(_remove(name, n_bytes) for name, n_bytes in gone.items())],
                mode="append",
                schema=table.schema(),
                commit_properties=self._commit(snapshot),
            )
        except (DeltaError, OSError) as error:
            raise PassingError(explain(error)) from error

    def _create(self, snapshot: Snapshot) -> None:
        """Begin the table, whole from its first version on."""
        from deltalake.transaction import create_table_with_add_actions

        if not snapshot.parts:
            return  # Only a part tells how wide embeddings are.
        create_table_with_add_actions(
            location(self._store.uri),
            _to_delta(self._read_schema(snapshot.parts[0])),
            [_add(part) for part in snapshot.parts],
            mode="error",
            name="zsic",
            storage_options=storage_options(self._store.uri, self._spec),
            commit_properties=self._commit(snapshot),
        )

    def _commit(self, snapshot: Snapshot) -> "CommitProperties":
        from deltalake import CommitProperties, Transaction

        return CommitProperties(
            custom_metadata={"userMetadata": f"zsic snapshot {snapshot.sequence}"},
            # None: of two that begin a table at once, both won (1.6, measured), for the loser's retry is appended to
            # the winner's table.  So who is not first fails, and looks again.
            max_commit_retries=0,
            app_transactions=[Transaction(self._name(), snapshot.sequence)],
        )

    def _name(self) -> str:
        """The name of the transactions: that of this output and no other, were it at the same place."""
        first = self._store.read(snapshot_name(1))
        return f"zsic-{hashlib.sha256(first or b'').hexdigest()[:16]}"

    def _check_ours(self, table: "DeltaTable") -> None:
        if table.transaction_version(self._name()) is None:
            raise self._refuse("was not made from this output")
        if foreign := sorted(path for path in list_paths(table) if not sequence_of(path)):
            raise self._refuse(f"holds {len(foreign)} files that are no parts of the output, {foreign[0]} among them")
        if (version := table.protocol().min_reader_version) > 1:
            raise self._refuse(f"asks for version {version} of Delta's readers, as deletion vectors do")

    def _refuse(self, reason: str) -> SpecError:
        return SpecError(
            f"output.publish: the Delta table in {self._store.uri} {reason}. Only zsic may write to it, OPTIMIZE and "
            f"DELETE included; move {self._store.uri}/{LOG} away, and with output.publish the next run makes it anew"
        )

    def _read_schema(self, part: PartEntry) -> pa.Schema:
        place = place_of(self._store, part)
        try:
            with self._store.open(place) as file:
                return pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"output: {self._store.uri}/{place} cannot be read: {error}") from error


def _add(part: PartEntry) -> "AddAction":
    from deltalake.transaction import AddAction

    stats = {
        "numRecords": part.n_rows,
        "minValues": {"id": part.first_id},
        "maxValues": {"id": part.last_id},
        "nullCount": {"id": 0},
    }
    return AddAction(part.name, part.n_bytes, {}, _now_ms(), True, json.dumps(stats))


def _remove(name: str, n_bytes: int) -> "RemoveAction":
    from deltalake.transaction import RemoveAction

    return RemoveAction(name, True, _now_ms(), n_bytes, {})


def _now_ms() -> int:
    return time.time_ns() // 10**6


def _to_delta(schema: pa.Schema) -> "Schema":
    """The columns in Delta's types: all may be null there, and what is of a fixed size is binary."""
    from deltalake import Schema

    fields = [
        pa.field(each.name, pa.binary() if pa.types.is_fixed_size_binary(each.type) else each.type, True)
        for each in schema
    ]
    return Schema.from_arrow(pa.schema(fields))


def _is_same(ours: "Schema", theirs: "Schema") -> bool:
    return [(f.name, f.type) for f in ours.fields] == [(f.name, f.type) for f in theirs.fields]
