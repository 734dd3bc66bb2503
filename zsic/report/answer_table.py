"""The published rows as one label set answers them: a few columns of all rows, or all columns of a few rows.

Shape legend: B rows of one batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.schema import LABELS, PATH, AnswerColumns, output_schema, read_metadata
from zsic.storage.store import Store
from zsic.storage.table import Table, open_table

_FEW_ROWS = 8_192
"""Rows at once where all columns are read."""
_EVERY_SET = (LABELS, PATH)


@dataclass(frozen=True)
class AnswerTable:
    """The rows of a snapshot, as one label set answers them."""

    table: Table
    columns: AnswerColumns
    most_score: float
    """No score of a best answer is above it."""

    @classmethod
    def open(cls, store: Store, set_name: str | None) -> "AnswerTable":
        """Look at the footers.  Raises `SpecError` if nothing is published, or there is no such label set."""
        table = open_table(store)
        score = table.answer_column("score", set_name)
        return cls(table, AnswerColumns(set_name), _most(table, score))

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
        entry = read_metadata(self.table.schema, key)
        if isinstance(entry, Mapping) and self.columns.set_name is not None:
            return entry.get(self.columns.set_name)
        return entry

    @property
    def kept(self) -> list[str]:
        """The columns that were kept from the source."""
        ours = {*output_schema((), 1).names, *_EVERY_SET}
        for name in self.table.label_sets:
            columns = AnswerColumns(name, has_labels=True, has_path=True)
            ours.update(field.name for field in columns.fields())
        return [name for name in self.table.schema.names if name not in ours]

    def batches(self, extra: Sequence[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Give id, outcome, best answer and the figures of the predictions of all rows, and the number of the part."""
        name = self.columns.name
        leaves = [f"{name('predictions')}.list.element.{leaf}" for leaf in ("score", "similarity")]
        wanted = list(dict.fromkeys(["id", "outcome", name("label"), name("score"), *leaves, *extra]))
        for number, part in enumerate(self.table.snapshot.parts):
            for batch in self.table.read_part(part, wanted):
                yield number, batch

    def rows(self, ids_of: Mapping[int, Sequence[int]], extra: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Give all columns (but the embeddings) of a few rows, named by the number of their part and id."""
        name, there = self.columns.name, self.table.schema.names
        wanted = ["id", "uri", "key", "outcome", "detail", "width", "height"]
        wanted += [name(each) for each in ("label", "score", "predictions", *_EVERY_SET)] + [*self.kept, *extra]
        wanted = list(dict.fromkeys(each for each in wanted if each in there))
        for number, ids in sorted(ids_of.items()):
            picked = pa.array(sorted(ids), pa.int64())
            for batch in self.table.read_part(self.table.snapshot.parts[number], wanted, _FEW_ROWS):
                found = batch.filter(pc.is_in(batch["id"], value_set=picked))
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


def _most(table: Table, column: str) -> float:
    """The highest value of a column by the parts' statistics; 1 where one has none."""
    most = 0.0
    for footer in table.footers():
        for number in range(footer.num_row_groups):
            value = _most_of_group(footer.row_group(number), column)
            if value is None:
                return 1.0
            most = max(most, value)
    return most


def _most_of_group(group: pq.RowGroupMetaData, column: str) -> float | None:
    chunk = next(chunk for i in range(group.num_columns) if (chunk := group.column(i)).path_in_schema == column)
    statistics = chunk.statistics
    if statistics is None:
        return None
    if statistics.null_count == chunk.num_values:
        return 0.0
    return float(statistics.max) if statistics.has_min_max else None
