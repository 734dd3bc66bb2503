"""How a table of right answers is written in CSV, Parquet and JSONL files."""

from collections.abc import Hashable, Iterator
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from zsic.core.errors import SpecError
from zsic.core.wording import normalise
from zsic.evaluate.files import Filesystem, open_file

_JOIN_TYPES = {"id": pa.int64(), "uri": pa.string(), "key": pa.string()}


def read_truth_table(
    path: str, label_column: str, filesystem: Filesystem | None
) -> tuple[tuple[str, ...], dict[Hashable, str]]:
    """Give the columns to join on, and the label by their values; rows without a label are left out.

    An `id` is enough by itself; else all of `uri` and `key` that are there count, and several make a tuple.
    """
    types = {**_JOIN_TYPES, label_column: pa.string()}
    with open_file(path, filesystem) as file:
        try:
            table = _read(file, path, types)
        except pa.ArrowException as error:
            raise SpecError(f"{path}: {error}") from None
    if label_column not in table.column_names:
        raise SpecError(f"{path} has no column {label_column!r} with the labels, or nothing is in it")
    by = [name for name in _JOIN_TYPES if name in table.column_names]
    if not by:
        raise SpecError(f"{path} has no column id, uri or key to find images by, or nothing is in it")
    by = by[:1] if by[0] == "id" else by
    return tuple(by), _collect(table, by, label_column, path)


def _read(file: IO[bytes], path: str, types: dict[str, pa.DataType]) -> pa.Table:
    """Read the columns of `types` that are there and hold something."""
    match PurePosixPath(path).suffix.lower():
        case ".csv":
            # Types are given, or Arrow would take the label `no` for a truth value and the key `007` for 7.
            table = pa.csv.read_csv(
                file,
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    include_missing_columns=True,
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        case ".jsonl" | ".ndjson":
            table = pa.json.read_json(
                file,
                parse_options=pa.json.ParseOptions(
                    explicit_schema=pa.schema(types), unexpected_field_behavior="ignore"
                ),
            )
        case ".parquet":
            parquet = pa.parquet.ParquetFile(file)
            names = [name for name in types if name in parquet.schema_arrow.names]
            table = parquet.read(columns=names)
            table = table.cast(pa.schema([(name, types[name]) for name in names]))
        case _:
            raise SpecError(
                f"{path} is no truth by its ending; use .csv, .parquet or .jsonl, `folder`, or `column:NAME`"
            )
    return table.select([name for name in table.column_names if table[name].null_count < len(table)])


def _collect(table: pa.Table, by: list[str], label_column: str, path: str) -> dict[Hashable, str]:
    answers: dict[Hashable, str] = {}
    for number, (key, label) in enumerate(_rows(table, by, label_column), start=1):
        if not label:
            continue
        if key is None or (isinstance(key, tuple) and key[0] is None):
            raise SpecError(f"{path} row {number}: label {label!r} has no {by[0]}, so no image can have it")
        if answers.setdefault(key, label) != label:
            raise SpecError(
                f"{path} row {number}: {' and '.join(by)} {key!r} has the label {label!r} here and "
                f"{answers[key]!r} in an earlier row; keep one, or add a column that tells the images apart"
            )
    return answers


def _rows(table: pa.Table, by: list[str], label_column: str) -> Iterator[tuple[Hashable, str]]:
    """Yield key and label of each row, batch by batch, so that few Python objects live at once."""
    known: dict[str | None, str] = {}
    for batch in table.to_batches(max_chunksize=65_536):
        columns = [batch[name].to_pylist() for name in by]
        keys = zip(*columns, strict=True) if len(by) > 1 else columns[0]
        for key, label in zip(keys, batch[label_column].to_pylist(), strict=True):
            if label not in known:
                known[label] = normalise(label or "")
            yield key, known[label]
