"""How a table of right answers is written in CSV, Parquet and JSONL files.

An answer is one label, or several: a list in Parquet and JSONL, texts with `;` between them in CSV.
"""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from zsic.core.errors import SpecError
from zsic.core.wording import normalise
from zsic.evaluate.files import Filesystem, open_file

Answer = tuple[str, ...]
"""What is said of one image: its labels, each once, in the order of the file; of an empty list, that it has none."""

_SEPARATOR = ";"
_IMAGE_TYPES = {"uri": pa.string(), "key": pa.string()}
_ID_TYPES = {"id": pa.int64()}


def read_truth_table(
    path: str, label_column: str, filesystem: Filesystem | None
) -> tuple[tuple[str, ...], dict[Hashable, Answer], bool]:
    """Give the columns to join on, the answer by their values, and whether answers are lists.

    Rows without a label are left out, but for an empty list, which is an answer.  All of `uri` and `key` that are there
    count, and both make a tuple; only where neither is, an `id`, which is that of one output alone.
    """
    ending = PurePosixPath(path).suffix.lower()
    by: list[str] = []
    for types in (_IMAGE_TYPES, _ID_TYPES):
        with open_file(path, filesystem) as file:
            try:
                table = _read(file, path, label_column, types)
            except pa.ArrowException as error:
                raise SpecError(f"{path}: {error}") from None
        if label_column not in table.column_names:
            raise SpecError(f"{path} has no column {label_column!r} with the labels, or nothing is in it")
        if by := [name for name in types if name in table.column_names]:
            break
    else:
        raise SpecError(f"{path} has no column uri, key or id to find images by, or nothing is in it")
    answer_of = _collect(table, by, label_column, path, split=ending == ".csv")
    lists = _is_list(table.schema.field(label_column).type) or any(len(answer) > 1 for answer in answer_of.values())
    return tuple(by), answer_of, lists


def _read(file: IO[bytes], path: str, label_column: str, join_types: Mapping[str, pa.DataType]) -> pa.Table:
    """Read the columns to join on, and the labels, as far as they are there and hold something."""
    types = {**join_types, label_column: pa.string()}
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
            try:
                table = _read_jsonl(file, types)
            except pa.ArrowInvalid as error:
                if "array" not in str(error):
                    raise
                # The label of some row is a list; then they must all be.
                file.seek(0)
                table = _read_jsonl(file, {**types, label_column: pa.list_(pa.string())})
        case ".parquet":
            parquet = pa.parquet.ParquetFile(file)
            if repeated := [name for name in types if parquet.schema_arrow.names.count(name) > 1]:
                raise SpecError(f"{path} has several columns {repeated[0]!r}; keep one")
            names = [name for name in types if name in parquet.schema_arrow.names]
            table = parquet.read(columns=names)
            if label_column in names and _is_list(table.schema.field(label_column).type):
                types[label_column] = pa.list_(pa.string())
            table = table.cast(pa.schema([(name, types[name]) for name in names]))
        case _:
            raise SpecError(
                f"{path} is no truth by its ending; use .csv, .parquet or .jsonl, `folder`, or `column:NAME`"
            )
    return table.select([name for name in table.column_names if table[name].null_count < len(table)])


def _read_jsonl(file: IO[bytes], types: dict[str, pa.DataType]) -> pa.Table:
    return pa.json.read_json(
        file, parse_options=pa.json.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _collect(table: pa.Table, by: list[str], label_column: str, path: str, *, split: bool) -> dict[Hashable, Answer]:
    answer_of: dict[Hashable, Answer] = {}
    for number, (key, answer) in enumerate(_rows(table, by, label_column, split), start=1):
        if answer is None or (not answer and key is None):
            continue
        if key is None or (isinstance(key, tuple) and key[0] is None):
            raise SpecError(f"{path} row {number}: label {_show(answer)} has no {by[0]}, so no image can have it")
        if set(answer_of.setdefault(key, answer)) != set(answer):
            raise SpecError(
                f"{path} row {number}: {' and '.join(by)} {key!r} has the label {_show(answer)} here and "
                f"{_show(answer_of[key])} in an earlier row; keep one, or add a column that tells the images apart"
            )
    return answer_of


def _rows(table: pa.Table, by: list[str], label_column: str, split: bool) -> Iterator[tuple[Hashable, Answer | None]]:
    """Yield key and answer of each row, batch by batch, so that few Python objects live at once."""
    known: dict[tuple[str | None, ...], Answer | None] = {}
    for batch in table.to_batches(max_chunksize=65_536):
        columns = [batch[name].to_pylist() for name in by]
        keys = zip(*columns, strict=True) if len(by) > 1 else columns[0]
        for key, written in zip(keys, batch[label_column].to_pylist(), strict=True):
            answer = tuple(written) if isinstance(written, list) else (written,)
            if answer not in known:
                # An empty list says that there is none; an empty cell says nothing.
                known[answer] = _clean(answer, split) or (() if isinstance(written, list) else None)
            yield key, known[answer]


def _clean(answer: tuple[str | None, ...], split: bool) -> Answer:
    texts = [text for text in answer if text]
    if split:
        texts = [part for text in texts for part in text.split(_SEPARATOR)]
    return tuple(dict.fromkeys(filter(None, map(normalise, texts))))


def _show(answer: Answer) -> str:
    return repr(answer[0]) if len(answer) == 1 else repr(list(answer))
