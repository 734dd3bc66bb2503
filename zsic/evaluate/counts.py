"""Counts by number, for more numbers than an array could hold a place for each.

Shape legend: N what is counted, U the distinct numbers.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]

_MERGE_AT = 1 << 20
"""Numbers that wait before they are merged; as many again as there are, and the merging stays linear in all."""


class SparseCounts:
    """How often each of some int64 numbers came; memory is that of the distinct ones, 16 bytes each, four times over.

    Where they become more than `most`, `shrink` gives fewer in their place, with the same total.
    """

    def __init__(
        self, most: int | None = None, shrink: Callable[[Keys, Keys], tuple[Keys, Keys]] | None = None
    ) -> None:
        self._keys: Keys = np.zeros(0, np.int64)
        self._counts: Keys = np.zeros(0, np.int64)
        self._waiting: list[tuple[Keys, Keys]] = []
        self._n_waiting = 0
        self._most, self._shrink = most, shrink

    def add(self, key_N: Keys) -> None:
        """Count each of the numbers once more."""
        if len(key_N) == 0:
            return
        key_U, n_U = np.unique(key_N, return_counts=True)
        self._waiting.append((key_U, n_U.astype(np.int64)))
        self._n_waiting += len(key_U)
        if self._n_waiting > max(_MERGE_AT, len(self._keys)):
            self._merge()

    def items(self) -> tuple[Keys, Keys]:
        """Give the numbers, ascending, and their counts."""
        self._merge()
        return self._keys, self._counts

    def _merge(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate([self._keys, *(key_U for key_U, _ in self._waiting)])
        counts = np.concatenate([self._counts, *(n_U for _, n_U in self._waiting)])
        self._waiting, self._n_waiting = [], 0
        self._keys, self._counts = sum_by(keys, counts)
        while self._most is not None and self._shrink is not None and len(self._keys) > self._most:
            n_before = len(self._keys)
            self._keys, self._counts = sum_by(*self._shrink(self._keys, self._counts))
            if len(self._keys) == n_before:
                break


def sum_by(key_N: Keys, count_N: Keys) -> tuple[Keys, Keys]:
    """Add up the counts of equal numbers; ascending."""
    order_N = np.argsort(key_N, kind="stable")
    key_N, count_N = key_N[order_N], count_N[order_N]
    is_first_N = np.append(True, key_N[1:] != key_N[:-1])[: len(key_N)]
    start_U = np.flatnonzero(is_first_N)
    sums: Keys = np.add.reduceat(count_N, start_U) if len(key_N) else count_N
    return key_N[start_U], sums
