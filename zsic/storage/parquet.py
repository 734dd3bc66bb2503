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
from zsic.storage.parquet_file import ParquetFile
from zsic.storage.sample import End, Sample, Source
from zsic.storage.stream import DamageError

COLUMN_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "picture", "photo")
"""Which of several binary columns holds the images; the first that is there."""
BATCH_ROWS = 1
"""More are hardly faster, and an image may be as large as its file, or larger."""


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
    return ParquetFile(info, objects).schema


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
    file = ParquetFile(info, objects)
    column = find_image_column(file.schema, spec.image_column, info.uri)
    if column is None:
        raise SpecError(f"source.image_column: {info.uri} has no column of bytes")
    nested = pa.types.is_struct(file.schema.field(column).type)
    kept_names = [name for name in spec.keep_columns if name in file.schema.names]
    columns = [f"{column}.bytes" if nested else column, *kept_names]
    first = 0
    for number, n_rows in enumerate(file.count_rows()):
        rows = range(first, first + n_rows)
        first = rows.stop
        if rows and all(map(skip, rows)):
            yield from ((None, {}) for _ in rows)
            continue
        for batch in file.read_group(number, columns, BATCH_ROWS):
            images = batch.column(column)
            kept = _kept_rows(batch, kept_names)
            for row in range(batch.num_rows):
                value = images[row]
                yield value["bytes"] if nested and value.is_valid else value, kept[row]


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
    key = str(index)
    if not value.is_valid:
        return Sample(index, key, None, Failure(Outcome.EMPTY, "the image is null"), columns)
    n_bytes = value.as_buffer().size
    if n_bytes > max_bytes:
        detail = f"{n_bytes} bytes are more than decode.max_bytes ({max_bytes})"
        return Sample(index, key, None, Failure(Outcome.TOO_LARGE, detail), columns)
    return Sample(index, key, value.as_py(), None, columns)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "no column"
