"""What evaluation reads of an output's parts: batches of a few columns, those of one label set.

Shape legend: B rows of one batch, N their predictions, K the most of one row.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import SpecError
from zsic.core.outcome import Outcome
from zsic.core.schema import LABELS, AnswerColumns, read_metadata
from zsic.evaluate.files import Filesystem, find_files, open_file
from zsic.evaluate.vocabulary import Ids, Vocabulary

BATCH_ROWS = 65_536
"""Rows in memory at once."""

REJECTED, FAILED = -1, -2
"""In place of a label's number: nothing passed the threshold, or the image could not be read."""


class Rows:
    """The answers of one batch, as numbers; rows that stand for an unreadable shard are left out before."""

    def __init__(self, batch: pa.RecordBatch, columns: AnswerColumns, vocabulary: Vocabulary) -> None:
        self.batch = batch
        self._columns, self._vocabulary = columns, vocabulary

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def is_ok_B(self) -> npt.NDArray[np.bool_]:
        """Which images could be read."""
        is_ok_B: npt.NDArray[np.bool_] = pc.equal(self.batch["outcome"], str(Outcome.OK)).to_numpy(zero_copy_only=False)
        return is_ok_B

    @cached_property
    def answer_B(self) -> Ids:
        """The number of the best answer, `REJECTED` or `FAILED`."""
        label_B = self._vocabulary.answered(self.batch[self._columns.name("label")])
        return np.where(self.is_ok_B, np.where(label_B < 0, REJECTED, label_B), FAILED)

    @cached_property
    def score_B(self) -> npt.NDArray[np.float32]:
        """The score of the best answer; NaN where there is none."""
        return _floats(self.batch[self._columns.name("score")])

    @cached_property
    def n_predicted_B(self) -> Ids:
        """Predictions of each row."""
        n_B: Ids = pc.fill_null(pc.list_value_length(self.batch[self._columns.name("predictions")]), 0).to_numpy()
        return n_B.astype(np.int64)

    @cached_property
    def row_N(self) -> Ids:
        """The row of each prediction; they come row by row, best first."""
        return np.repeat(np.arange(len(self.batch)), self.n_predicted_B)

    @cached_property
    def rank_N(self) -> Ids:
        """The place of each prediction in its row, from 0."""
        n_B = self.n_predicted_B
        return np.arange(len(self.row_N)) - np.repeat(np.cumsum(n_B) - n_B, n_B)

    @cached_property
    def label_N(self) -> Ids:
        """The number of each prediction's label."""
        return self._vocabulary.answered(self.batch[self._columns.name("predictions")].flatten().field("label"))

    @cached_property
    def score_N(self) -> npt.NDArray[np.float32]:
        """Of each prediction."""
        return _floats(self.batch[self._columns.name("predictions")].flatten().field("score"))

    @cached_property
    def chosen(self) -> tuple[Ids, Ids]:
        """Row and label of all that is answered: of mode multi every label that passed, else the best one."""
        if self._columns.name(LABELS) in self.batch.schema.names:
            lists = self.batch[self._columns.name(LABELS)]
            n_B = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
            return np.repeat(np.arange(len(n_B)), n_B), self._vocabulary.answered(lists.flatten())
        row_N = np.flatnonzero(self.answer_B >= 0)
        return row_N, self.answer_B[row_N]


class Parts:
    """The parts of one output.

    Raises `SpecError` where a part cannot be read, or lacks a column that is asked for.
    """

    def __init__(self, output: str | Iterable[str], set_name: str | None, filesystem: Filesystem | None) -> None:
        self.paths = find_files(output, filesystem)
        self.columns = AnswerColumns(set_name)
        self._filesystem = filesystem

    def labels(self) -> list[str] | None:
        """Give the label set as the first part's metadata tells it; None where it does not."""
        for path in self.paths[:1]:
            with open_file(path, self._filesystem) as file:
                return _labels_of(_open(file, path).schema_arrow, self.columns.set_name)
        return None

    def batches(self, *, columns: Sequence[str], predictions: bool = True) -> Iterator[pa.RecordBatch]:
        """Yield outcome, label, score, predictions and `columns`, in the order of the parts.

        What repeats comes as dictionary arrays.  Without `predictions` these are left out.
        """
        mine = self.columns
        wanted = ["outcome", mine.name("label"), mine.name("score")]
        predicted = [mine.name("predictions")] if predictions else []
        leaves = [f"{name}.list.element.{leaf}" for name in predicted for leaf in ("label", "score")]
        for path in self.paths:
            with open_file(path, self._filesystem) as file:
                part = _open(file, path)
                names = part.schema_arrow.names
                needed = [*wanted, *predicted, *columns]
                _require(path, names, needed, mine.set_name)
                extra = [f"{mine.name(LABELS)}.list.element"] if predictions and mine.name(LABELS) in names else []
                chosen = list(dict.fromkeys([*wanted, *leaves, *extra, *columns]))
                # Not of what is nested: Arrow cannot read that where it comes in chunks.
                part = pq.ParquetFile(
                    file,
                    metadata=part.metadata,
                    read_dictionary=["outcome", mine.name("label")],
                    pre_buffer=False,
                    buffer_size=2**20,
                )
                yield from part.iter_batches(BATCH_ROWS, columns=chosen)


def drop_shards(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Leave out the rows that stand for an unreadable shard, or its rest."""
    return batch.filter(pc.not_equal(batch["outcome"], str(Outcome.BAD_SHARD)))


def _open(file: Any, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    except pa.ArrowException as error:
        raise SpecError(f"{path} is not a Parquet file: {error}") from None


def _require(path: str, names: Sequence[str], needed: Sequence[str], set_name: str | None) -> None:
    for name in needed:
        if name in names:
            continue
        told = f"{path} has no column {name!r}; it has {', '.join(names)}"
        if set_name is None and (sets := [each[12:] for each in names if each.startswith("predictions_")]):
            told = f"{path} has the answers of several label sets; choose one with --set: {', '.join(sets)}"
        raise SpecError(told)


def _labels_of(schema: pa.Schema, set_name: str | None) -> list[str] | None:
    labels = read_metadata(schema, "labels")
    if isinstance(labels, dict):
        labels = labels.get(set_name)
    return [str(label) for label in labels] if isinstance(labels, list) else None


def _floats(values: pa.Array) -> npt.NDArray[np.float32]:
    floats: npt.NDArray[np.float32] = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False)
    return floats.astype(np.float32)
