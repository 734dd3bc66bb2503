"""How a list of images is read from a Parquet, CSV or JSON Lines file, row by row."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from zsic.core.errors import SourceError, SpecError
from zsic.core.spec import SourceSpec
from zsic.storage.access import ObjectInfo, ReadError
from zsic.storage.kinds import PARQUET_ENDINGS
from zsic.storage.objects import Objects
from zsic.storage.parquet_file import ParquetFile
from zsic.storage.stream import DamageError
from zsic.storage.uri import folder_of, resolve

MAX_LINE_BYTES = 16 * 2**20
MAX_URI_CHARS = 8192
"""Twice what a path on Linux may have; object stores allow 1024 bytes."""
MAX_KEPT_CHARS = 2**20
"""Of the kept columns of one row, as JSON; a row with more goes without."""
BATCH_ROWS = 64


def read_manifest(info: ObjectInfo, objects: Objects, spec: SourceSpec) -> Iterator[tuple[str, str | None]]:
    """Give each row's uri, spelled absolutely, and its kept columns as JSON text.

    Every row counts: a uri that comes twice is two sources.  Lines of JSON may leave columns out.  Raises
    `SpecError` for a column that is not there and `SourceError` for a row that cannot be read, with its
    number.
    """
    lower = info.uri.lower()
    if lower.endswith(PARQUET_ENDINGS):
        rows = _read_parquet(info, objects, spec)
    elif lower.endswith(".csv"):
        rows = _read_csv(info, objects, spec)
    else:
        rows = _read_jsonl(info, objects, spec)
    folder = folder_of(info.uri)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            uri = row.get(spec.uri_column)
            if not isinstance(uri, str) or not uri:
                raise SourceError(
                    f"{info.uri}: row {number} has no {spec.uri_column}; got {uri!r}; fill it or drop the row"
                )
            if len(uri) > MAX_URI_CHARS:
                raise SourceError(f"{info.uri}: row {number} has a {spec.uri_column} of {len(uri)} characters; drop it")
            uri.encode()  # A lone surrogate, as JSON can spell it, is no text that a table could hold.
            kept = {name: row.get(name) for name in spec.keep_columns}
            try:
                resolved = resolve(uri, folder)
            except SpecError as error:
                raise SpecError(f"{info.uri}: row {number}: {error}") from None
            yield resolved, to_json(kept) if kept else None
    except ReadError as error:
        raise SourceError(f"{info.uri} cannot be read: {error}") from None
    except (pa.ArrowException, csv.Error, DamageError, RecursionError, ValueError) as error:
        raise SourceError(f"{info.uri}: damaged after row {number}: {error}") from None


def check_columns(uri: str, have: Sequence[str], spec: SourceSpec) -> None:
    """Raise `SpecError` that names a column of `keep_columns` that a file has not, and those that it has."""
    for name in spec.keep_columns:
        # `json` is the member of a tar; a job over tars and tables may keep both.
        if name not in have and name != "json":
            raise SpecError(f"source.keep_columns: {uri} has no column {name!r}; it has {', '.join(map(repr, have))}")


def to_json(row: Mapping[str, Any]) -> str | None:
    """Write kept columns as a JSON object; what JSON does not know (times, decimals) becomes text.

    None is too much: every row of a table would have a copy.
    """
    if sum(len(value) for value in row.values() if isinstance(value, str | bytes)) > MAX_KEPT_CHARS:
        return None
    text = json.dumps(row, ensure_ascii=False, default=_as_text)
    return None if len(text) > MAX_KEPT_CHARS else text.encode("utf-8", "replace").decode()


def _as_text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _check_header(uri: str, have: Sequence[str], spec: SourceSpec) -> None:
    if spec.uri_column not in have:
        raise SpecError(
            f"source.uri_column: {uri} has no column {spec.uri_column!r}; it has {', '.join(map(repr, have))}"
        )
    check_columns(uri, have, spec)


def _read_parquet(info: ObjectInfo, objects: Objects, spec: SourceSpec) -> Iterator[dict[str, Any]]:
    file = ParquetFile(info, objects)
    _check_header(info.uri, file.schema.names, spec)
    wanted = [name for name in dict.fromkeys((spec.uri_column, *spec.keep_columns)) if name in file.schema.names]
    for number, _ in enumerate(file.count_rows()):
        for batch in file.read_group(number, wanted, BATCH_ROWS):
            yield from batch.to_pylist()


def _read_csv(info: ObjectInfo, objects: Objects, spec: SourceSpec) -> Iterator[dict[str, Any]]:
    with objects.open_stream(info) as stream:
        # utf-8-sig: spreadsheets write a byte order mark before the first name.
        text = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
        rows = csv.reader(text, strict=True)
        header = next(rows, [])
        _check_header(info.uri, header, spec)
        for row in rows:
            if row:
                yield dict(zip(header, row, strict=False))


def _read_jsonl(info: ObjectInfo, objects: Objects, spec: SourceSpec) -> Iterator[dict[str, Any]]:
    with objects.open_stream(info) as stream:
        lines = io.BufferedReader(stream)
        while line := lines.readline(MAX_LINE_BYTES):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise SourceError(f"{info.uri}: each line is a JSON object; got {line[:80]!r}")
            yield row
