"""The columns: of the output table, and of the blocks that travel between the stages.

Shape legend: D width of an embedding, H W pixels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from zsic.core.embedding import embedding_field

SCHEMA_VERSION = 1
"""Raised when a column changes its name, type or meaning."""

PREDICTION = pa.struct(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)

_IDENTITY = (
    pa.field("id", pa.int64(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("key", pa.string()),
    pa.field("outcome", pa.string(), nullable=False),
    pa.field("detail", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
)

LABELS = "labels"
"""With `mode: multi`: every label that fits, best first."""
PATH = "path"
"""Where labels have parents: from the top down to the answer."""


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """Which columns the answers to one label set have."""

    set_name: str | None = None
    """Ends the names of the columns; None where the job has one set only."""
    has_labels: bool = False
    has_path: bool = False

    def name(self, column: str) -> str:
        """What the column `label`, `score` ... is called for this set."""
        return column if self.set_name is None else f"{column}_{self.set_name}"

    def fields(self) -> list[pa.Field]:
        """The columns, in order."""
        fields = [
            pa.field(self.name("label"), pa.string()),
            pa.field(self.name("score"), pa.float32()),
            pa.field(self.name("predictions"), pa.list_(pa.field("element", PREDICTION, nullable=False))),
        ]
        if self.has_labels:
            fields.append(pa.field(self.name(LABELS), pa.list_(pa.field("element", pa.string()))))
        if self.has_path:
            fields.append(pa.field(self.name(PATH), pa.list_(pa.field("element", pa.string()))))
        return fields


PIXELS = "pixels"
SOURCE_TOTAL = "source_total"
"""On the last row of a source: how many rows the source has in all.  Null elsewhere."""
KEPT = "kept"
"""The kept columns of a row, as the text of a JSON object.  Null where there are none."""

INDEX_BITS = 24
"""`id` = source ordinal << 24 | index within the source: 16.7 M images a shard, 5.5e11 sources."""


OF_ONE_SET = AnswerColumns()
"""The columns of a set whose labels exclude one another and have no parents."""


def decoded_schema(height: int, width: int) -> pa.Schema:
    """Columns between decode and encoder: one row an image, failed ones with zero pixels of full size.

    Pixels are uint8 [H, W, 3] in C order; as fixed_size_binary they cross the object store without a copy.
    """
    return pa.schema(
        [
            *_IDENTITY,
            pa.field(SOURCE_TOTAL, pa.int32()),
            pa.field(KEPT, pa.string()),
            pa.field(PIXELS, pa.binary(height * width * 3), nullable=False),
        ]
    )


def output_schema(
    keep_columns: Sequence[str] = (),
    embedding_dim: int | None = None,
    answers: Sequence[AnswerColumns] = (OF_ONE_SET,),
) -> pa.Schema:
    """Columns of the table in `OUT/*.parquet`, in order.

    `embedding` holds little-endian float16 unit vectors; its field metadata says so for readers without zsic.
    Kept columns are strings: text as it is, everything else as JSON text.
    """
    fields = [*_IDENTITY, *(field for columns in answers for field in columns.fields())]
    if embedding_dim is not None:
        fields.append(embedding_field(embedding_dim))
    fields += [pa.field(name, pa.string()) for name in keep_columns]
    return pa.schema(fields)


def with_metadata(schema: pa.Schema, entries: Mapping[str, object]) -> pa.Schema:
    """Attach `zsic.`-prefixed entries, values as JSON, to a schema; Parquet keeps them in the file's footer."""
    return schema.with_metadata({f"zsic.{key}": json.dumps(entries[key]) for key in entries})


def read_metadata(schema: pa.Schema, key: str) -> object:
    """Give back one entry that `with_metadata` attached, or None."""
    text = (schema.metadata or {}).get(f"zsic.{key}".encode())
    return None if text is None else json.loads(text)


def split_kept(kept: pa.ChunkedArray, names: Sequence[str]) -> list[pa.Array]:
    """Turn the JSON texts of the column `kept` into one string array a kept column."""
    if not names:
        return []
    rows = [json.loads(text) if text is not None else {} for text in kept.to_pylist()]
    return [pa.array([_as_text(row.get(name)) for row in rows], pa.string()) for name in names]


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
