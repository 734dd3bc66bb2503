"""Outputs over real sources, published by the project's own protocol, with answers that a test makes up."""

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from zsic.core.decode import DecodeError, decode
from zsic.core.schema import SOURCE_TOTAL, AnswerColumns, output_schema, split_kept
from zsic.core.spec import DecodeSpec, JobSpec, OutputSpec, SourceSpec, StoreSpec
from zsic.storage.objects import Objects
from zsic.storage.output import Output
from zsic.storage.plan import read_piece
from zsic.storage.rows import RawRow, read_sources_rows
from zsic.storage.sample import Source
from zsic.storage.sources import list_sources
from zsic.storage.store import Store, open_store

Answer = Sequence[tuple[str, float]]
"""Labels and scores of one image, best first."""
ONE_SET = (AnswerColumns(),)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (300, 200), format: str = "PNG") -> bytes:
    """A picture of one colour, by which it is told from others however small it is made."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> str:
    """Write a shard; names may come again."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return str(path)


def write_parquet(path: Path, images: Sequence[bytes], **columns: Sequence[Any]) -> str:
    """Write images as rows, two a row group."""
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), **columns}), path, row_group_size=2)
    return str(path)


@dataclass
class Lake:
    """A source and what a run makes of it."""

    output: Path | str
    source: SourceSpec
    answer: Callable[[RawRow], Answer | Mapping[str | None, Answer]]
    """Of an image that can be decoded, for one set or by the name of the set; of none the image is rejected."""
    labels: Sequence[str] = ()
    keep_columns: Sequence[str] = ()
    sets: Sequence[AnswerColumns] = ONE_SET
    rows_per_part: int = 1_000
    metadata: dict[str, object] = field(default_factory=dict)
    digest: str = "0123456789abcdef"
    """Of the model's weights."""
    store: StoreSpec = field(default_factory=StoreSpec)

    def publish(self) -> Store:
        """Classify everything, and publish."""
        store = open_store(str(self.output), self.store)
        output, objects = Output(store), Objects(self.store)
        spec = JobSpec(
            source=self.source,
            labels=({"names": ("-",)},),
            output=OutputSpec(uri=str(self.output)),  # type: ignore[arg-type]
        )
        listing = list_sources(self.source, objects, excluding=store.uri)
        fields = {"model": {"digest": self.digest, "dtype": "float32"}, "decode": DecodeSpec().model_dump()}
        work = output.begin(listing, fields, self.source.model_dump(mode="json"))
        assert work.plan is not None
        assert work.lease is not None
        rows = [
            row
            for piece in work.plan.pieces
            for ordinal, source in _sources(store, piece)
            for row in read_sources_rows([(ordinal, source)], objects, spec)
        ]
        for number, begin in enumerate(range(0, len(rows), self.rows_per_part)):
            table = self._to_table(rows[begin : begin + self.rows_per_part])
            metadata = {"labels": list(self.labels), "model": "toy", **self.metadata}
            output.write_part(work.plan, table, metadata, f"lake-{number:04d}")
        output.publish(work.plan, "lake")
        work.lease.end()
        return store

    def _to_table(self, rows: Sequence[RawRow]) -> pa.Table:
        schema = output_schema(self.keep_columns, None, self.sets).append(pa.field(SOURCE_TOTAL, pa.int32()))
        table = pa.Table.from_pylist([self._to_row(row) for row in rows], schema)
        kept = pa.chunked_array([pa.array([row.kept for row in rows], pa.string())])
        for name, values in zip(self.keep_columns, split_kept(kept, self.keep_columns), strict=True):
            table = table.set_column(table.schema.get_field_index(name), schema.field(name), values)
        return table

    def _to_row(self, row: RawRow) -> dict[str, Any]:
        made: dict[str, Any] = {"id": row.id, "uri": row.uri, "key": row.key, SOURCE_TOTAL: row.source_total}
        failure = row.failure
        if row.data is not None:
            try:
                made["width"], made["height"] = decode(row.data, DecodeSpec()).size
            except DecodeError as error:
                failure, made["width"], made["height"] = error.failure, error.width, error.height
        if failure is not None:
            return made | {"outcome": str(failure.outcome), "detail": failure.detail}
        answers = self.answer(row)
        by_set = answers if isinstance(answers, Mapping) else {None: answers}
        for columns in self.sets:
            best = by_set[columns.set_name]
            # A score of 0 stands for one below its threshold.
            is_answered = bool(best) and best[0][1] > 0
            made[columns.name("label")] = best[0][0] if is_answered else None
            made[columns.name("score")] = best[0][1] if is_answered else None
            made[columns.name("predictions")] = [
                {"label": label, "score": score, "similarity": score / 2} for label, score in best
            ]
            if columns.has_labels:
                made[columns.name("labels")] = [label for label, score in best if score >= 0.5]
        return made | {"outcome": "ok", "detail": None}


def _sources(store: Store, piece: Any) -> Iterator[tuple[int, Source]]:
    names = ["uri", "kind", "size", "etag", "mtime_ns", "columns"]
    for row in read_piece(store, piece).to_pylist():
        yield row["ordinal"], Source(**{name: row[name] for name in names})
