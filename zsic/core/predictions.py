"""The columns of the answers, made from arrays: no Python object for each image.

Shape legend: N rows of a block, B images of a batch, C labels, K predictions kept, P pairs of an image and a label that
fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zsic.core.schema import LABELS, OF_ONE_SET, PATH, PREDICTION, AnswerColumns
from zsic.core.verdict import NONE, Verdict

Rows = npt.NDArray[np.int64]


@dataclass
class Answers:
    """The answers of a block to one label set, entered batch by batch; rows that are never entered stay null."""

    labels: Sequence[str]
    names: Sequence[str]
    """Of the answers: the labels, and in a tree those above them."""
    n_rows: int
    top_k: int
    columns: AnswerColumns = OF_ONE_SET
    paths: Sequence[Sequence[str]] = ()
    """Of each answer, where the columns have them."""
    answered_N: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        n, k = self.n_rows, self.top_k
        self.answered_N = np.zeros(n, bool)
        self._label_NK = np.zeros((n, k), np.int32)
        self._score_NK = np.zeros((n, k), np.float32)
        self._similarity_NK = np.zeros((n, k), np.float32)
        self._answer_N = np.full(n, NONE, np.int32)
        self._answer_score_N = np.zeros(n, np.float32)
        self._fits: list[tuple[Rows, Rows]] = []

    def enter(self, rows_B: Rows, verdict: Verdict) -> None:
        """Enter the answers of the rows `rows_B` of the block, which are on the CPU."""
        self.answered_N[rows_B] = True
        for column, values in (
            (self._label_NK, verdict.top.label_index_BK),
            (self._score_NK, verdict.top.score_BK),
            (self._similarity_NK, verdict.top.similarity_BK),
            (self._answer_N, verdict.answer_B),
            (self._answer_score_N, verdict.score_B),
        ):
            column[rows_B] = values.numpy()
        if verdict.fits is not None:
            self._fits.append((rows_B[verdict.fits.image_P.numpy()], verdict.fits.label_P.numpy()))

    def withdraw(self, rows_B: Rows) -> None:
        """Take back the answers of some rows."""
        self.answered_N[rows_B] = False

    def to_arrays(self) -> dict[str, pa.Array]:
        """The columns of the answers by name."""
        has_label_N = self.answered_N & (self._answer_N != NONE)
        answer = pa.array(self._answer_N, mask=~has_label_N)
        made = {
            "label": pa.array(self.names, pa.string()).take(answer),
            "score": pa.array(self._answer_score_N, mask=~has_label_N),
            "predictions": self._predictions(),
        }
        if self.columns.has_labels:
            made[LABELS] = self._labels_that_fit()
        if self.columns.has_path:
            made[PATH] = pa.array(self.paths, pa.list_(pa.string())).take(answer)
        return {self.columns.name(column): array for column, array in made.items()}

    def _predictions(self) -> pa.ListArray:
        answered_N, names = self.answered_N, pa.array(self.labels, pa.string())
        # Rows without an answer have no entries of their own, so theirs are left out of the values.
        entries = pa.StructArray.from_arrays(
            [
                names.take(pa.array(self._label_NK[answered_N].ravel())),
                pa.array(self._score_NK[answered_N].ravel()),
                pa.array(self._similarity_NK[answered_N].ravel()),
            ],
            fields=list(PREDICTION),
        )
        return _lists(answered_N * self.top_k, entries, pa.field("element", PREDICTION, nullable=False), answered_N)

    def _labels_that_fit(self) -> pa.ListArray:
        """Of each row that is answered, perhaps none."""
        row_P = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._fits)])
        label_P = np.concatenate([np.empty(0, np.int64), *(labels for _, labels in self._fits)])
        order_P = np.argsort(row_P, kind="stable")
        order_P = order_P[self.answered_N[row_P[order_P]]]
        n_N = np.bincount(row_P[order_P], minlength=self.n_rows)
        names = pa.array(self.labels, pa.string()).take(pa.array(label_P[order_P]))
        return _lists(n_N, names, pa.field("element", pa.string()), self.answered_N)


def _lists(n_N: npt.NDArray[np.int64], values: pa.Array, element: pa.Field, valid_N: npt.NDArray[np.bool_]) -> pa.Array:
    offsets = np.zeros(len(n_N) + 1, np.int32)
    np.cumsum(n_N, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=pa.list_(element), mask=pa.array(~valid_N))
