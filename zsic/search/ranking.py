"""The rows that are most similar to a query, exactly, in one pass and little memory.

Shape legend: N rows of a batch, Q queries, D embedding width, T rows kept.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from zsic.core.embedding import Vectors, from_column

ROWS_AT_ONCE = 1_024
"""Their float32 rows stay in a CPU's caches."""
_ROUNDING = 2.0**-24
"""Of float32; what a sum of D products can be off by is D times as much, for unit vectors."""

Ids = npt.NDArray[np.int64]
Reader = Callable[[], Iterator[pa.RecordBatch]]
"""Gives the columns `id` and `embedding` of one part."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best rows of one query, best first; equally similar ones in order of id."""

    ids_T: Ids
    similarity_T: npt.NDArray[np.float64]
    part_T: npt.NDArray[np.int64]
    """Place of each row's part."""

    def join(self, other: "Best", n: int) -> "Best":
        """The `n` best of both."""
        columns = [np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True)]
        order_T = np.lexsort((columns[0], -columns[1]))[:n]
        return Best(*(column[order_T] for column in columns))

    def _columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        return self.ids_T, self.similarity_T, self.part_T


def rank_parts(readers: Sequence[Reader], query_QD: npt.NDArray[np.float32], n: int, *, n_threads: int) -> list[Best]:
    """The `n` best rows of all parts for each query, which are unit vectors; rows without an embedding are passed over.

    Each thread reads a part of its own.  The answers are those of float64, whatever the order: float32 only tells which
    rows cannot be among the best.
    """
    ranking = _Ranking(query_QD, n)
    n_before = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads are these here
    try:
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            done = [pool.submit(ranking.enter_part, part, reader) for part, reader in enumerate(readers)]
            try:
                for each in done:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(n_before)
    return ranking.best


class _Ranking:
    """The best rows so far; may be entered by several threads at once."""

    def __init__(self, query_QD: npt.NDArray[np.float32], n: int) -> None:
        n_queries, dim = query_QD.shape
        self._query_DQ = torch.from_numpy(np.ascontiguousarray(query_QD.T))
        self._exact_QD = query_QD.astype(np.float64)
        self._n = n
        self._tolerance = 1.01 * dim * _ROUNDING
        self._least_Q = np.full(n_queries, -np.inf)
        """Similarity of the last of the best, once there are enough."""
        self._lock = threading.Lock()
        none = Best(np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.int64))
        self.best = [replace(none) for _ in range(n_queries)]

    def enter_part(self, part: int, reader: Reader) -> None:
        staged_ND: torch.Tensor | None = None
        for batch in reader():
            column = batch["embedding"]
            image_ND, ids_N = from_column(column), batch["id"].to_numpy()
            if column.null_count:
                valid_N = column.is_valid().to_numpy(zero_copy_only=False)
                image_ND, ids_N = image_ND[valid_N], ids_N[valid_N]
            if staged_ND is None:
                # Torch knows no memory that must not be written to, as Arrow's is.
                staged_ND = torch.empty((ROWS_AT_ONCE, image_ND.shape[1]), dtype=torch.float16)
            for begin in range(0, len(ids_N), ROWS_AT_ONCE):
                rows = slice(begin, begin + ROWS_AT_ONCE)
                self._enter(part, ids_N[rows], image_ND[rows], staged_ND)

    def _enter(self, part: int, ids_N: Ids, image_ND: Vectors, staged_ND: torch.Tensor) -> None:
        staged_ND = staged_ND[: len(ids_N)]
        staged_ND.numpy()[:] = image_ND
        near_QN = (staged_ND.float() @ self._query_DQ).T.contiguous().numpy()
        for query, near_N in enumerate(near_QN):
            rows_N = np.flatnonzero(near_N >= self._least_Q[query] - self._tolerance)
            if len(rows_N) > self._n:
                # Of the batch itself, those that cannot be among its own best.  Both sides are rounded.
                last = np.partition(near_N[rows_N], -self._n)[-self._n]
                rows_N = rows_N[near_N[rows_N] >= last - 2 * self._tolerance]
            if len(rows_N):
                # Row by row: the same vector gives the same sum wherever it is.
                exact_N = (image_ND[rows_N].astype(np.float64) * self._exact_QD[query]).sum(axis=1)
                self._join(query, Best(ids_N[rows_N], exact_N, np.full(len(rows_N), part)))

    def _join(self, query: int, found: Best) -> None:
        with self._lock:
            best = self.best[query] = self.best[query].join(found, self._n)
            if len(best.ids_T) == self._n:
                self._least_Q[query] = best.similarity_T[-1]
