"""How a report reads an output's parts: a few columns of all rows, or all columns of a few rows.

Shape legend: B rows of one batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import SpecError
from zsic.core.schema import LABELS, PATH, AnswerColumns, output_schema, read_metadata
from zsic.evaluate.files import Filesystem, open_file

_BATCH_ROWS = 65_536
_FEW_ROWS = 8_192
"""Rows at once where all columns are read."""
_EVERY_SET = (LABELS, PATH)


@dataclass(frozen=True)
class Table:
    """The published parts of an output, as one label set answers them."""

    paths: Sequence[str]
    columns: AnswerColumns
    names: Sequence[str]
    """Of all columns."""
    schema: pa.Schema
    """Of the first part, with what its footer says."""
    most_score: float
    """No score of a best answer is above it."""
    filesystem: Filesystem | None

    @classmethod
    def open(cls, paths: Sequence[str], set_name: str | None, filesystem: Filesystem | None) -> "Table":
        """Look at the footers.  Raises `SpecError` where a part cannot be read, or has no such label set."""
        columns = AnswerColumns(set_name)
        schema, most_score = None, 0.0
        for path in paths:
            with open_file(path, filesystem) as file:
                part = _open(file, path)
                schema = schema or part.schema_arrow
                _require(path, part.schema_arrow.names, columns)
                most_score = max(most_score, _most(part, columns.name("score")))
        assert schema is not None
        return cls(tuple(paths), columns, schema.names, schema, most_score, filesystem)

    @property
    def labels(self) -> list[str] | None:
        """The label set; None where the footer does not tell it."""
        labels = self.told("labels")
        return [str(label) for label in labels] if isinstance(labels, list) else None

    @property
    def prompts(self) -> list[list[str]] | None:
        """The prompts of each label; None where the footer does not tell them."""
        prompts = self.told("prompts")
        if not isinstance(prompts, list) or not all(isinstance(each, list) for each in prompts):
            return None
        return [[str(text) for text in each] for each in prompts]

    def told(self, key: str) -> object:
        """What the footer says of this label set, or of the output."""
        entry = read_metadata(self.schema, key)
        if isinstance(entry, Mapping) and self.columns.set_name is not None:
            return entry.get(self.columns.set_name)
        return entry

    @property
    def kept(self) -> list[str]:
        """The columns that were kept from the source."""
        ours = {*output_schema((), 1).names, *_EVERY_SET}
        for name in _sets_of(self.names):
            columns = AnswerColumns(name, has_labels=True, has_path=True)
            ours.update(field.name for field in columns.fields())
        return [name for name in self.names if name not in ours]

    def batches(self, extra: Sequence[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Give id, outcome, best answer and the figures of the predictions of all rows, and the number of the part."""
        mine = self.columns
        leaves = [f"{mine.name('predictions')}.list.element.{leaf}" for leaf in ("score", "similarity")]
        wanted = list(dict.fromkeys(["id", "outcome", mine.name("label"), mine.name("score"), *leaves, *extra]))
        for number, path in enumerate(self.paths):
            with open_file(path, self.filesystem) as file:
                part = _open(file, path, read_dictionary=["outcome", mine.name("label")])
                for batch in part.iter_batches(_BATCH_ROWS, columns=wanted):
                    yield number, batch

    def rows(self, ids_of: Mapping[int, Sequence[int]], extra: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Give all columns (but the embeddings) of a few rows, named by part and id."""
        mine = self.columns
        names = ["id", "uri", "key", "outcome", "detail", "width", "height"]
        names += [mine.name(each) for each in ("label", "score", "predictions", *_EVERY_SET)] + [*self.kept, *extra]
        names = list(dict.fromkeys(name for name in names if name in self.names))
        for number, ids in sorted(ids_of.items()):
            wanted = pa.array(sorted(ids), pa.int64())
            with open_file(self.paths[number], self.filesystem) as file:
                part = _open(file, self.paths[number])
                for batch in part.iter_batches(_FEW_ROWS, columns=names):
                    found = batch.filter(pc.is_in(batch["id"], value_set=wanted))
                    if len(found):
                        yield found


def margins(predictions: pa.ListArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give the lead of the best score over the second [B], and the best similarity [B]; NaN where there is none."""
    n_B = pc.fill_null(pc.list_value_length(predictions), 0).to_numpy().astype(np.int64)
    flat = predictions.flatten()
    score_N, similarity_N = (np.append(flat.field(name).to_numpy(), np.nan) for name in ("score", "similarity"))
    first_B = np.cumsum(n_B) - n_B
    nothing = len(score_N) - 1
    best_B, second_B = np.where(n_B > 0, first_B, nothing), np.where(n_B > 1, first_B + 1, nothing)
    return score_N[best_B] - score_N[second_B], similarity_N[best_B]


def _open(file: Any, path: str, **options: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20, **options)
    except pa.ArrowException as error:
        raise SpecError(f"{path} is not a Parquet file: {error}") from None


def _require(path: str, names: Sequence[str], columns: AnswerColumns) -> None:
    if all(columns.name(each) in names for each in ("label", "score", "predictions")):
        return
    sets = _sets_of(names)
    if columns.set_name is None and sets:
        raise SpecError(f"{path} has the answers of several label sets; choose one with --set: {', '.join(sets)}")
    told = f"--set: {path} has {', '.join(sets) or 'one set only, without a name'}, and no {columns.set_name!r}"
    raise SpecError(told if columns.set_name is not None else f"{path} is no part of an output; it has no predictions")


def _sets_of(names: Sequence[str]) -> list[str]:
    return [name.removeprefix("predictions_") for name in names if name.startswith("predictions_")]


def _most(part: pq.ParquetFile, column: str) -> float:
    """The highest value of a column by the statistics; 1 where there are none."""
    most = 0.0
    for number in range(part.metadata.num_row_groups):
        group = part.metadata.row_group(number)
        chunk = next(chunk for i in range(group.num_columns) if (chunk := group.column(i)).path_in_schema == column)
        statistics = chunk.statistics
        if chunk.num_values and statistics is not None and statistics.null_count == chunk.num_values:
            continue
        if statistics is None or not statistics.has_min_max:
            return 1.0
        most = max(most, float(statistics.max))
    return most
