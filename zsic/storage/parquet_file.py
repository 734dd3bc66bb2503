"""A Parquet file that may be hostile: its footer may lie, and its pages may explode."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from zsic.storage.objects import ObjectInfo, Objects
from zsic.storage.range_file import open_version
from zsic.storage.stream import MAX_EXPANSION, DamageError

MAX_FOOTER_BYTES = 64 * 2**20
"""In memory, a footer is up to a hundred times as large."""
MAX_FOOTER_ENTRIES = 100_000
"""Columns, row groups and notes, of each."""
READ_BYTES = 8 * 2**20
"""Pages are read by ranges of this size, so that a row group of any size passes through little memory."""
WHOLE_BYTES = 32 * 2**20
"""Smaller row groups are read by whole columns: then Arrow sees at once that a page claims bytes that are not there.
Reading by ranges, it takes seconds to clear the 2 GiB that a page may claim."""
FREE_EXPANSION_BYTES = 256 * 2**20
"""A row group may become so large whatever the size of its file is; more is a bomb's."""


class ParquetFile:
    """One version of one file.  Every method may raise `ReadError` or Arrow's errors.

    pyarrow's metadata of columns are not touched: `RowGroupMetaData.column` ends the process where they are damaged.
    """

    def __init__(self, info: ObjectInfo, objects: Objects) -> None:
        source = open_version(objects, info)
        source.max_read_bytes = MAX_FOOTER_BYTES
        limits = {"thrift_string_size_limit": MAX_FOOTER_BYTES, "thrift_container_size_limit": MAX_FOOTER_ENTRIES}
        # Without `pre_buffer` pages are read as they are needed, not a row group at once.
        self._whole = pq.ParquetFile(source, pre_buffer=False, **limits)
        # Groups that are larger than they say.
        source.max_read_bytes = 2 * WHOLE_BYTES
        self._paged = pq.ParquetFile(
            open_version(objects, info), pre_buffer=False, buffer_size=READ_BYTES, metadata=self._whole.metadata
        )
        self._size = source.size
        self.schema: pa.Schema = self._whole.schema_arrow

    def count_rows(self) -> list[int]:
        """Rows of each group, as the footer has them.  Raises `DamageError` if it contradicts itself."""
        metadata = self._whole.metadata
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise DamageError("damaged Parquet file: its numbers of rows contradict each other")
        return counts

    def read_group(self, number: int, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Give the rows of one group, a few at a time: with a dictionary, 600 bytes of a file can be gigabytes of rows.

        `columns` are names, or paths of leaves.  Raises `DamageError` for a bomb, and if there are other rows than the
        footer has.
        """
        group = self._whole.metadata.row_group(number)
        if group.total_byte_size > MAX_EXPANSION * self._size + FREE_EXPANSION_BYTES:
            raise DamageError(f"damaged Parquet file: it expands more than {MAX_EXPANSION}-fold")
        file = self._whole if 0 < group.total_byte_size <= WHOLE_BYTES else self._paged
        n_read = 0
        for batch in file.iter_batches(batch_size=batch_rows, row_groups=[number], columns=list(columns)):
            n_read += batch.num_rows
            yield batch
        # Fewer would be lost without a word, and a rerun, which skips by these numbers, would tell others.
        if n_read != group.num_rows:
            raise DamageError(f"damaged Parquet file: {group.num_rows} rows are promised and {n_read} are there")
