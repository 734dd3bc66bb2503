"""A Parquet file that may be hostile: its footer may lie, and its pages may explode."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zsic.storage.objects import ObjectInfo, Objects
from zsic.storage.range_file import RangeFile
from zsic.storage.stream import MAX_EXPANSION, DamageError

MAX_FOOTER_BYTES = 64 * 2**20
"""In memory, a footer is up to a hundred times as large."""
MAX_FOOTER_ENTRIES = 100_000
"""Columns, row groups and notes, of each."""
READ_BYTES = 8 * 2**20
"""Pages are read by ranges of this size, so that a row group of any size passes through little memory."""
WHOLE_BYTES = 32 * 2**20
"""Smaller row groups are read whole: then Arrow sees at once that a page claims bytes that are not there.  Reading by
ranges, it takes seconds to clear the 2 GiB that a page may claim."""
BATCH_BYTES = 16 * 2**20
FREE_EXPANSION_BYTES = 256 * 2**20
"""A column of a row group may become so large whatever its size in the file is; more is a bomb's."""


class ParquetFile:
    """One version of one file.  Every method may raise `ReadError` or Arrow's errors."""

    def __init__(self, info: ObjectInfo, objects: Objects) -> None:
        source = RangeFile(objects, info)
        source.max_read_bytes = MAX_FOOTER_BYTES
        limits = {"thrift_string_size_limit": MAX_FOOTER_BYTES, "thrift_container_size_limit": MAX_FOOTER_ENTRIES}
        # Without `pre_buffer` pages are read as they are needed, not a row group at once.
        self._whole = pq.ParquetFile(source, pre_buffer=False, **limits)
        source.max_read_bytes = None
        self._size = source.size
        self._paged = pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BYTES, metadata=self._whole.metadata)
        self.schema: pa.Schema = self._whole.schema_arrow

    def count_rows(self) -> list[int]:
        """Rows of each group, as the footer has them."""
        metadata = self._whole.metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def read_group(self, number: int, columns: Sequence[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        """Give the rows of one group in batches of about `BATCH_BYTES`.

        `columns` are names, or paths of leaves.  Raises `DamageError` for a bomb, and if there are other rows than the
        footer has.
        """
        group = self._whole.metadata.row_group(number)
        wanted = {name.partition(".")[0] for name in columns}
        chunks = [group.column(at) for at in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in wanted]
        sizes = [chunk.total_compressed_size for chunk in chunks]
        if group.num_rows < 0 or min(sizes, default=0) < 0 or sum(sizes) > self._size:
            raise DamageError("damaged Parquet file: its footer is impossible")
        for chunk, size in zip(chunks, sizes, strict=True):
            if chunk.total_uncompressed_size > MAX_EXPANSION * size + FREE_EXPANSION_BYTES:
                raise DamageError(f"damaged Parquet file: a column expands more than {MAX_EXPANSION}-fold")
        file = self._whole if sum(sizes) <= WHOLE_BYTES else self._paged
        n_read = 0
        rows = min(most_rows, _batch_rows(chunks, group.num_rows))
        for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=list(columns)):
            n_read += batch.num_rows
            yield batch
        # Fewer would be lost without a word, and a rerun, which skips by these numbers, would tell others.
        if n_read != group.num_rows:
            raise DamageError(f"damaged Parquet file: {group.num_rows} rows are promised and {n_read} are there")


def _batch_rows(chunks: Sequence[Any], n_rows: int) -> int:
    """Rows of about `BATCH_BYTES`, by what the file says of itself.

    Where there is a dictionary, each row may be as large as all of it: 600 bytes of a file can be gigabytes of rows.
    """
    per_row = 0
    for chunk in chunks:
        has_dictionary = any("DICTIONARY" in encoding for encoding in chunk.encodings)
        per_row += chunk.total_uncompressed_size // (1 if has_dictionary else max(n_rows, 1))
    return int(max(1, BATCH_BYTES // max(per_row, 1)))
