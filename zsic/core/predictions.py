"""The columns of the answers, made from arrays: no Python object for each image.

Shape legend: N rows of a block, B images of a batch, C labels, K predictions kept, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zsic.core.embedding import DTYPE, Vectors, to_column
from zsic.core.schema import PREDICTION

Rows = npt.NDArray[np.int64]


@dataclass
class Answers:
    """The answers of a block, entered batch by batch; rows that are never entered stay null."""

    labels: Sequence[str]
    n_rows: int
    top_k: int
    dim: int | None = None
    """Width of the embeddings; None keeps none."""
    answered_N: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        n, k = self.n_rows, self.top_k
        self.answered_N = np.zeros(n, bool)
        self._label_NK = np.zeros((n, k), np.int32)
        self._score_NK = np.zeros((n, k), np.float32)
        self._similarity_NK = np.zeros((n, k), np.float32)
        self._embedding_ND: Vectors | None = np.zeros((n, self.dim), DTYPE) if self.dim is not None else None

    def enter(
        self,
        rows_B: Rows,
        label_BK: npt.NDArray[np.int32],
        score_BK: npt.NDArray[np.float32],
        similarity_BK: npt.NDArray[np.float32],
        image_BD: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Enter the answers of the rows `rows_B` of the block, each best first; embeddings where they are kept."""
        self.answered_N[rows_B] = True
        self._label_NK[rows_B] = label_BK
        self._score_NK[rows_B] = score_BK
        self._similarity_NK[rows_B] = similarity_BK
        if self._embedding_ND is not None and image_BD is not None:
            self._embedding_ND[rows_B] = image_BD

    def columns(self) -> dict[str, pa.Array]:
        """Give `label`, `score`, `predictions` and, if they are kept, `embedding`."""
        answered_N, names = self.answered_N, pa.array(self.labels, pa.string())
        best = pa.array(self._label_NK[:, 0], mask=~answered_N)
        # Rows without an answer have no entries of their own, so theirs are left out of the values.
        entries = pa.StructArray.from_arrays(
            [
                names.take(pa.array(self._label_NK[answered_N].ravel())),
                pa.array(self._score_NK[answered_N].ravel()),
                pa.array(self._similarity_NK[answered_N].ravel()),
            ],
            fields=list(PREDICTION),
        )
        offsets = np.zeros(self.n_rows + 1, np.int32)
        np.cumsum(answered_N * self.top_k, out=offsets[1:])
        made = {
            "label": names.take(best),
            "score": pa.array(self._score_NK[:, 0], mask=~answered_N),
            "predictions": pa.ListArray.from_arrays(
                pa.array(offsets),
                entries,
                type=pa.list_(pa.field("element", PREDICTION, nullable=False)),
                mask=pa.array(~answered_N),
            ),
        }
        if self._embedding_ND is not None:
            made["embedding"] = to_column(self._embedding_ND, answered_N)
        return made
