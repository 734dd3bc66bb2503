"""How images are read from a Parquet file: which column holds them, and its rows in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from zsic.core.errors import SpecError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import SourceSpec
from zsic.storage.access import ObjectInfo, ReadError
from zsic.storage.manifest import to_json
from zsic.storage.objects import Objects
from zsic.storage.range_file import open_parquet
from zsic.storage.sample import End, Sample, Source
from zsic.storage.stream import MAX_EXPANSION, DamageError

COLUMN_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "picture", "photo")
"""Which of several binary columns holds the images; the first that is there."""
READ_BYTES = 8 * 2**20
"""Pages are read by ranges of this size, so that a row group of any size passes through little memory."""
BATCH_BYTES = 16 * 2**20
MAX_BATCH_ROWS = 256
FREE_EXPANSION_BYTES = 256 * 2**20
"""A column of a row group may become so large in memory whatever its size in the file is; more is a bomb's."""
MAX_KEPT_BYTES = 2**20
"""Of a row's kept columns, as JSON; a row with more goes without."""


def find_image_column(schema: pa.Schema, wanted: str | None, uri: str) -> str | None:
    """Name the column with the images: raw bytes, or a struct with `bytes` as Hugging Face datasets write it.

    Returns None if nothing could be one.  Raises `SpecError` if `wanted` is not there or cannot be one, or if
    there are several and none has a telling name.
    """
    candidates: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    if wanted is not None:
        if wanted in candidates:
            return wanted
        fault = "is not binary" if wanted in schema.names else "is not there"
        raise SpecError(f"source.image_column: {wanted!r} {fault} in {uri}; {_list(candidates)} could be one")
    structs = [name for name in candidates if pa.types.is_struct(schema.field(name).type)]
    for group in (structs, candidates):
        if len(group) == 1:
            return group[0]
    for name in COLUMN_NAMES:
        if name in (structs or candidates):
            return name
    if candidates:
        raise SpecError(f"source.image_column is not set, and {uri} has several: {_list(candidates)}")
    return None


def read_schema(info: ObjectInfo, objects: Objects) -> pa.Schema:
    """Read the footer.  Raises `ReadError`, or Arrow's errors if this is no Parquet file."""
    return open_parquet(info, objects).schema_arrow


def read_parquet(
    source: Source,
    objects: Objects,
    spec: SourceSpec,
    *,
    max_bytes: int,
    skip: Callable[[int], bool],
) -> Iterator[Sample | End]:
    """Give one sample a row, keyed by its number in the file, then the end.

    A file that cannot be read (from some row on) gives one sample without a key in place of the rest.
    """
    index = 0
    try:
        for value, kept in _rows(source.info, objects, spec, skip):
            if not skip(index):
                yield _sample(index, value, kept, max_bytes)
            index += 1
    except ReadError as error:
        failure = error.failure
    except DamageError as error:
        failure = Failure(Outcome.BAD_SHARD, str(error))
    except SpecError:
        failure = Failure(Outcome.BAD_SHARD, "no column of images can be told, unlike in the file listed first")
    except (pa.ArrowException, OSError, UnicodeError):
        # Arrow's own words hold addresses and differ between its versions.
        failure = Failure(Outcome.BAD_SHARD, f"damaged Parquet file, from row {index} on")
    else:
        if index:
            yield End(index)
            return
        failure = Failure(Outcome.EMPTY, "the file holds no rows")
    if not skip(index):
        yield Sample(index, None, None, failure)
    yield End(index + 1, failure)


def _rows(
    info: ObjectInfo, objects: Objects, spec: SourceSpec, skip: Callable[[int], bool]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each row's image and kept columns; a row group that is to be skipped whole is counted, not read."""
    if info.size == 0:
        return
    # Without `pre_buffer` pages are read as they are needed, not a row group at once.
    file = open_parquet(info, objects, buffer_size=READ_BYTES, pre_buffer=False)
    schema = file.schema_arrow
    column = find_image_column(schema, spec.image_column, info.uri)
    if column is None:
        raise SpecError(f"source.image_column: {info.uri} has no column of bytes")
    nested = pa.types.is_struct(schema.field(column).type)
    kept_names = [name for name in spec.keep_columns if name in schema.names]
    first = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        rows = range(first, first + max(group.num_rows, 0))
        first = rows.stop
        if all(map(skip, rows)):
            yield from ((None, {}) for _ in rows)
            continue
        wanted = {column, *kept_names}
        chunks = [group.column(at) for at in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in wanted]
        _refuse_bombs(chunks, rows.start)
        n_read = 0
        batches = file.iter_batches(
            batch_size=_batch_rows(chunks, len(rows)),
            row_groups=[number],
            columns=[f"{column}.bytes" if nested else column, *kept_names],
        )
        for batch in batches:
            images = batch.column(column)
            kept = _kept_rows(batch, kept_names)
            for row in range(batch.num_rows):
                value = images[row]
                yield value["bytes"] if nested and value.is_valid else value, kept[row]
            n_read += batch.num_rows
        # Fewer would be lost without a word, and a rerun, which skips by these numbers, would tell others.
        if n_read != group.num_rows:
            raise DamageError(f"damaged Parquet file: {group.num_rows} rows are promised and {n_read} are there")


def _refuse_bombs(chunks: Sequence[Any], row: int) -> None:
    for chunk in chunks:
        if chunk.total_uncompressed_size > MAX_EXPANSION * chunk.total_compressed_size + FREE_EXPANSION_BYTES:
            raise DamageError(f"a column that expands more than {MAX_EXPANSION}-fold, from row {row} on")


def _kept_rows(batch: pa.RecordBatch, names: Sequence[str]) -> list[dict[str, Any]]:
    """Text as bytes, for a caption that is no UTF-8 must not cost its image."""
    columns = [batch.column(name) for name in names]
    texts = [column.cast(pa.binary()) if pa.types.is_string(column.type) else column for column in columns]
    values = [text.to_pylist() for text in texts]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)] or [
        {} for _ in range(batch.num_rows)
    ]


def _sample(index: int, value: Any, kept: dict[str, Any], max_bytes: int) -> Sample:
    columns = to_json(kept) if kept else None
    if columns is not None and len(columns) > MAX_KEPT_BYTES:
        columns = None
    key = str(index)
    if not value.is_valid:
        return Sample(index, key, None, Failure(Outcome.EMPTY, "the image is null"), columns)
    n_bytes = value.as_buffer().size
    if n_bytes > max_bytes:
        detail = f"{n_bytes} bytes are more than decode.max_bytes ({max_bytes})"
        return Sample(index, key, None, Failure(Outcome.TOO_LARGE, detail), columns)
    return Sample(index, key, value.as_py(), None, columns)


def _batch_rows(chunks: Sequence[Any], n_rows: int) -> int:
    """Rows of about `BATCH_BYTES`, by what the file says of itself.

    Where there is a dictionary, each row may be as large as all of it: 600 bytes of a file can be gigabytes of rows.
    """
    per_row = 0
    for chunk in chunks:
        has_dictionary = any("DICTIONARY" in encoding for encoding in chunk.encodings)
        per_row += chunk.total_uncompressed_size // (1 if has_dictionary else max(n_rows, 1))
    return int(max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(per_row, 1))))


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "no column"
