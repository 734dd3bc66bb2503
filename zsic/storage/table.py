"""The table as it is published, part by part and batch by batch: what reads an output need not hold it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from zsic.core.errors import SpecError, StoreError
from zsic.storage.part import STAGED
from zsic.storage.snapshot import PartEntry, Snapshot, last_snapshot
from zsic.storage.store import Store

BATCH_ROWS = 65_536
BUFFER_BYTES = 8 * 2**20
"""Of a column that is being read: a part is one row group, and its embeddings may be hundreds of megabytes."""
_ANSWERS = ("label", "score", "predictions")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of the parts that one snapshot lists; a part that a later run has replaced is not waited for."""

    store: Store
    snapshot: Snapshot
    schema: pa.Schema
    """Of the first part, with what its footer says."""

    def read(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Give some columns of all rows, part by part.  Names may be paths of leaves.  Raises `StoreError`."""
        for part in self.snapshot.parts:
            yield from self.read_part(part, columns, batch_rows)

    def read_part(
        self, part: PartEntry, columns: Sequence[str], batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Give some columns of one part, in order of id.  Raises `StoreError`."""
        try:
            with _open_part(self.store, part) as file:
                # Buffered ahead, all columns come by few requests; embeddings are too large for that.
                ahead = "embedding" not in columns
                reader = pq.ParquetFile(file, pre_buffer=ahead, buffer_size=0 if ahead else BUFFER_BYTES)
                yield from reader.iter_batches(batch_rows, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"output: {self.store.uri}/{part.name} cannot be read: {error}") from error

    def footers(self) -> Iterator[pq.FileMetaData]:
        """Give the footers of the parts.  Raises `StoreError`."""
        for part in self.snapshot.parts:
            try:
                with _open_part(self.store, part) as file:
                    yield pq.ParquetFile(file).metadata
            except (pa.ArrowException, OSError) as error:
                raise StoreError(f"output: {self.store.uri}/{part.name} cannot be read: {error}") from error

    def answer_column(self, column: str, set_name: str | None) -> str:
        """What the column `label`, `score` or `predictions` of a label set is called.

        Raises `SpecError` that names the sets there are.
        """
        if column in self.schema.names and set_name is None:
            return column
        sets = self.label_sets
        if set_name in sets:
            return f"{column}_{set_name}"
        if not sets:
            raise SpecError(
                f"--set is {set_name!r}, but {self.store.uri} has one label set, without a name; leave it out"
            )
        wrong = "is missing" if set_name is None else f"is {set_name!r}"
        raise SpecError(f"--set {wrong}; {self.store.uri} has the label sets {', '.join(sets)}")

    @property
    def label_sets(self) -> tuple[str, ...]:
        """The names of the label sets, where columns have them."""
        names = self.schema.names
        found = [name.removeprefix("label_") for name in names if name.startswith("label_")]
        return tuple(each for each in found if all(f"{column}_{each}" in names for column in _ANSWERS))


def open_table(store: Store) -> Table:
    """Open the last snapshot of an output.  Raises `SpecError` if nothing is published."""
    snapshot = last_snapshot(store)
    if snapshot is None or not snapshot.parts:
        raise SpecError(f"{store.uri}: nothing is published there yet; run `zsic classify` to its end first")
    first = snapshot.parts[0]
    try:
        with _open_part(store, first) as file:
            schema = pq.ParquetFile(file).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"output: {store.uri}/{first.name} cannot be read: {error}") from error
    return Table(store, snapshot, schema)


def _open_part(store: Store, part: PartEntry) -> BinaryIO:
    # In its place, or not there yet, or moved there between the two questions.
    for place in (part.name, f"{STAGED}/{part.name}", part.name):
        with contextlib.suppress(FileNotFoundError):
            return store.open(place)
    raise StoreError(
        f"output: {store.uri}/{part.name} is missing: another run has replaced it, and this command may be run again; "
        "else `zsic verify` tells what is missing"
    )
