"""The output whose embeddings get other labels: its parts are the sources, their rows the rows.

Parts never change, and what a newer snapshot no longer lists is gone: so an output that follows another by its parts
has just the rows of its latest snapshot, each answered once.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from zsic.core.errors import SourceError, SpecError
from zsic.core.fingerprint import fingerprint
from zsic.core.schema import read_metadata
from zsic.core.spec import SourceSpec, StoreSpec
from zsic.storage.output import Output
from zsic.storage.part import STAGED, read_columns, read_schema
from zsic.storage.pending import Pending, PendingCount
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.snapshot import Snapshot, last_snapshot, place_of
from zsic.storage.store import Store, open_store

BATCH_ROWS = 10_000
KIND = "part"


@dataclass(frozen=True)
class Origin:
    """An output that is published and has embeddings."""

    store: Store
    snapshot: Snapshot
    fields: Mapping[str, Any]
    """Of its job: what decided its answers, and so its embeddings."""
    keep_columns: tuple[str, ...]
    dim: int
    model: str
    """The name that its job had for the model."""
    revision: str | None

    @classmethod
    def open(cls, source: SourceSpec, store_spec: StoreSpec) -> Self:
        """Look at what is there.  Raises `SourceError` if it is no output, and `SpecError` if it has no embeddings."""
        if len(source.uris) != 1:
            raise SpecError(f"source.uris: {len(source.uris)} are given, and source.format is output; name one output")
        if source.keep_columns:
            raise SpecError("source.keep_columns: those of the output are kept anyhow; leave it out")
        (uri,) = source.uris
        store = open_store(uri.rstrip("/"), store_spec)
        snapshot, fields = last_snapshot(store), Output(store).read_job()
        if snapshot is None or fields is None or not snapshot.parts:
            raise SourceError(f"source.uris: {uri} is no output of zsic's that is published; run `zsic classify` first")
        schema = read_schema(store, place_of(store, snapshot.parts[0]))
        if "embedding" not in schema.names:
            raise SpecError(
                f"source.uris: {uri} has no embeddings, from which alone images can be answered again; classify them "
                "with --embeddings into a new output"
            )
        of_output: Any = fields["output"]
        revision = read_metadata(schema, "revision")
        return cls(
            store=store,
            snapshot=snapshot,
            fields=fields,
            keep_columns=tuple(of_output["keep_columns"]),
            dim=schema.field("embedding").type.byte_width // 2,
            model=str(read_metadata(schema, "model")),
            revision=None if revision is None else str(revision),
        )

    @property
    def fingerprint(self) -> str:
        """Of its job."""
        return fingerprint(self.fields)

    @property
    def rows_per_part(self) -> int:
        """In the mean."""
        return -(-self.snapshot.n_rows // len(self.snapshot.parts))

    @property
    def most_rows(self) -> int:
        """Of the largest part."""
        return max(part.n_rows for part in self.snapshot.parts)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """List the parts, as `Output.begin` reads a listing."""
        parts = self.snapshot.parts
        for begin in range(0, len(parts), BATCH_ROWS):
            batch = parts[begin : begin + BATCH_ROWS]
            columns = {
                "uri": [f"{self.store.uri}/{part.name}" for part in batch],
                "kind": [KIND] * len(batch),
                "size": [part.n_bytes for part in batch],
                "etag": [part.digest for part in batch],
                "mtime_ns": [None] * len(batch),
                "columns": [None] * len(batch),
            }
            yield pa.RecordBatch.from_pydict(columns, SOURCE_SCHEMA)

    def covers(self, uri: str) -> bool:
        """Whether a source is a part of this output, there or gone."""
        return uri.startswith(f"{self.store.uri}/")

    def estimate(self, counted: PendingCount) -> Pending:
        """Rows of the parts that are left."""
        n_bytes = sum(part.n_bytes for part in self.snapshot.parts)
        n_rows = round(counted.n_shard_bytes * self.snapshot.n_rows / n_bytes)
        return Pending(n_images=n_rows, exact=True, n_bytes=counted.n_shard_bytes)


def read_rows(store: Store, name: str, columns: list[str]) -> pa.Table | None:
    """Read some columns of a part; None if it has gone, because a later snapshot does without it."""
    # In its place, or not there yet, or moved there between the two questions.
    for place in (name, f"{STAGED}/{name}", name):
        with contextlib.suppress(FileNotFoundError):
            return read_columns(store, place, columns)
    return None
