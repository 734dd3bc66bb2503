"""Which few rows of millions are shown: the best of each group by some value, whatever the order they come in.

Shape legend: N rows.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Best:
    """The `n` rows of highest value of each group; of equal ones those with the lowest id."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._group_N: Integers = np.zeros(0, np.int64)
        self._value_N: Floats = np.zeros(0, np.float64)
        self._id_N: Integers = np.zeros(0, np.int64)
        self._part_N: Integers = np.zeros(0, np.int64)

    def add(self, group_N: Integers, value_N: Floats, id_N: Integers, part: int) -> None:
        """Look at the rows of a batch, which is of the part with this number."""
        if len(group_N) == 0 or self._n == 0:
            return
        group_N = np.concatenate([self._group_N, group_N])
        value_N = np.concatenate([self._value_N, value_N])
        id_N = np.concatenate([self._id_N, id_N])
        part_N = np.concatenate([self._part_N, np.full(len(id_N) - len(self._part_N), part)])
        order_N = np.lexsort((id_N, -value_N, group_N))
        sorted_N = group_N[order_N]
        starts = np.flatnonzero(np.diff(sorted_N, prepend=sorted_N[0] - 1))
        place_N = np.arange(len(order_N)) - np.repeat(starts, np.diff(starts, append=len(order_N)))
        kept = order_N[place_N < self._n]
        self._group_N, self._value_N, self._id_N, self._part_N = group_N[kept], value_N[kept], id_N[kept], part_N[kept]

    def of(self, group: int, n: int | None = None) -> list[tuple[int, int]]:
        """Give id and number of the part of a group's rows, the best first; at most `n`."""
        at = slice(*np.searchsorted(self._group_N, (group, group + 1)))
        return list(zip(self._id_N[at][:n].tolist(), self._part_N[at][:n].tolist(), strict=True))


def shuffle(id_N: Integers, seed: int) -> Floats:
    """Give each id a number from 0 to 1 that looks random and depends on the id and the seed alone (SplitMix64).

    So a random sample is the same however the rows are cut into parts and batches.
    """
    with np.errstate(over="ignore"):
        mixed_N = id_N.astype(np.uint64) + np.uint64((seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed_N ^= mixed_N >> np.uint64(31)
    number_N: Floats = (mixed_N >> np.uint64(11)).astype(np.float64) / 2**53
    return number_N
