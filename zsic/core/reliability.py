"""How far scores can be taken at their word: answers in bins of score, and how far from the share that is right.

Shape legend: N answers, M bins.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

N_BINS = 15
"""As Guo et al. (2017) and most who came after count; the error depends on it, so it is compared at one number only."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Answers by bin of score; sums of batches are those of the whole, in any order."""

    n_M: npt.NDArray[np.int64]
    """Answers of each bin; bin m holds scores in (m / M, (m + 1) / M], and the first one 0 as well."""
    n_right_M: npt.NDArray[np.int64]
    score_sum_M: npt.NDArray[np.float64]

    @classmethod
    def count(cls, score_N: npt.ArrayLike, right_N: npt.ArrayLike, n_bins: int = N_BINS) -> Self:
        """Count answers, with scores of 0 to 1 and whether each is right.  Raises `ValueError` on other scores."""
        value_N: npt.NDArray[np.float64] = np.asarray(score_N, np.float64)
        is_right_N: npt.NDArray[np.bool_] = np.asarray(right_N, np.bool_)
        if not ((value_N >= 0) & (value_N <= 1)).all():
            raise ValueError("a score is not in 0 to 1")
        bin_N = np.maximum(np.ceil(value_N * n_bins).astype(np.int64) - 1, 0)
        n_M: npt.NDArray[np.int64] = np.bincount(bin_N, minlength=n_bins)
        n_right_M: npt.NDArray[np.int64] = np.bincount(bin_N[is_right_N], minlength=n_bins)
        score_sum_M = np.bincount(bin_N, value_N, minlength=n_bins)
        return cls(n_M, n_right_M, np.asarray(score_sum_M, np.float64))

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.n_M + other.n_M, self.n_right_M + other.n_right_M, self.score_sum_M + other.score_sum_M)

    @property
    def n(self) -> int:
        """Answers in all bins."""
        return int(self.n_M.sum())

    @property
    def error(self) -> float | None:
        """Expected calibration error (Naeini et al. 2015): the mean gap of score and share right, by answers.

        From 0 to 1; None where there is nothing to count.  It is never below the gap of the overall means.
        """
        return float(np.abs(self.score_sum_M - self.n_right_M).sum() / self.n) if self.n else None
