"""Whether a score can be taken at its word: of the answers with score 0.8, are 80 % right?

Shape legend: N answers, M bins, U fine bins that hold something, r replicates.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic.evaluate.bootstrap import Bootstrap, Counts
from zsic.evaluate.estimate import Estimate

N_BINS = 15
"""Of equal width, as Guo et al. (2017) and most who came after count; errors compare at one number only."""
_N_FINE = 128
"""Fine bins in each: the replicates take all answers of one to have the same score."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The answers with a score above `low` and up to `high`; the first bin holds 0 as well."""

    low: float
    high: float
    n: int
    n_right: int
    mean_score: float | None

    @property
    def accuracy(self) -> float | None:
        """The share that is right."""
        return self.n_right / self.n if self.n else None

    def to_dict(self) -> dict[str, float | int | None]:
        """Give everything in types that JSON has."""
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "n_right": self.n_right,
            "mean_score": self.mean_score,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of best answers against the share of them that is right."""

    error: Estimate
    """The expected calibration error (ECE): the mean gap of score and accuracy over the bins, by answers.

    Chance alone makes it positive, the more the fewer answers there are; the interval has that taken out, so
    of few answers it may lie below the value.
    """
    mean_score: float | None
    accuracy: float | None
    """Of the same answers; a mean score above it is over-confidence."""
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "error": self.error.to_dict(),
            "mean_score": self.mean_score,
            "accuracy": self.accuracy,
            "bins": [each.to_dict() for each in self.bins],
        }


class CalibrationCounts:
    """The answers so far."""

    def __init__(self) -> None:
        self._n = np.zeros(2 * N_BINS * _N_FINE, np.int64)
        self._score_sum = np.zeros(2 * N_BINS * _N_FINE, np.float64)

    def add(self, score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_]) -> None:
        """Count answers with scores from 0 to 1; what is beyond is taken for 0 or 1."""
        value_N = np.clip(np.nan_to_num(score_N.astype(np.float64), nan=0.0), 0, 1)
        # Exact: a float32 times 1,920 fits a float64.
        fine_N = np.maximum(np.ceil(value_N * (N_BINS * _N_FINE)).astype(np.int64) - 1, 0)
        cell_N = 2 * fine_N + is_right_N
        self._n += np.bincount(cell_N, minlength=len(self._n))
        self._score_sum += np.bincount(cell_N, value_N, minlength=len(self._n))

    def close(self, bootstrap: Bootstrap) -> Calibration:
        """Give the result."""
        n_M = self._n.reshape(N_BINS, -1).sum(1)
        n_right_M = self._n.reshape(N_BINS, -1, 2)[:, :, 1].sum(1)
        score_M = self._score_sum.reshape(N_BINS, -1).sum(1)
        n = int(n_M.sum())
        edges = [m / N_BINS for m in range(N_BINS + 1)]
        return Calibration(
            error=self._error(bootstrap, n, np.abs(score_M - n_right_M).sum()),
            mean_score=float(score_M.sum()) / n if n else None,
            accuracy=int(n_right_M.sum()) / n if n else None,
            bins=tuple(
                ReliabilityBin(low, high, int(n_m), int(right), float(score) / int(n_m) if n_m else None)
                for (low, high), n_m, right, score in zip(pairwise(edges), n_M, n_right_M, score_M, strict=True)
            ),
        )

    def _error(self, bootstrap: Bootstrap, n: int, gap: float) -> Estimate:
        if n == 0:
            return Estimate(None, None, None, 0)
        cell_U = np.flatnonzero(self._n)
        gap_U = self._score_sum[cell_U] / self._n[cell_U] - cell_U % 2
        start_M = np.flatnonzero(np.diff(cell_U // (2 * _N_FINE), prepend=-1))

        def error(n_rU: Counts) -> npt.NDArray[np.float64]:
            gap_rM = np.add.reduceat(n_rU * gap_U, start_M, axis=1)
            total_r = n_rU.sum(1)
            return np.where(total_r > 0, np.abs(gap_rM).sum(1) / np.maximum(total_r, 1), np.nan)

        value = float(gap) / n
        percentiles = Estimate.from_replicates(value, bootstrap.replicate(self._n[cell_U], error), n)
        if percentiles.low is None or percentiles.high is None:
            return percentiles
        # Replicates are off by as much upwards again as the value itself: turned round, that is taken out.
        return Estimate(value, max(0.0, 2 * value - percentiles.high), max(0.0, 2 * value - percentiles.low), n)
