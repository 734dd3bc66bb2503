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
    """The expected calibration error (ECE): the mean gap of score and accuracy over the bins, by answers."""
    error_by_chance: float | None
    """What the error would be on average if every score could be taken at its word; less with more answers."""
    mean_score: float | None
    accuracy: float | None
    """Of the same answers; a mean score above it is over-confidence."""
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "error": self.error.to_dict(),
            "error_by_chance": self.error_by_chance,
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
        error, by_chance = self._error(bootstrap, n, float(np.abs(score_M - n_right_M).sum()))
        return Calibration(
            error=error,
            error_by_chance=by_chance,
            mean_score=float(score_M.sum()) / n if n else None,
            accuracy=int(n_right_M.sum()) / n if n else None,
            bins=tuple(
                ReliabilityBin(low, high, int(n_m), int(right), float(score) / int(n_m) if n_m else None)
                for (low, high), n_m, right, score in zip(pairwise(edges), n_M, n_right_M, score_M, strict=True)
            ),
        )

    def _error(self, bootstrap: Bootstrap, n: int, gap: float) -> tuple[Estimate, float | None]:
        """Give the error, and its mean by chance.

        Chance adds to the error, and once more to its replicates.  So the lower bound is that of the replicates
        turned round, which takes it out twice; and it is 0 where scores that can be taken at their word would give
        such an error in one case of 40 or more (consistency resampling, Bröcker and Smith 2007).  Measured on
        samples of 300 to 30,000 rows, it holds the error of endlessly many rows in 93 to 97 % of the cases; the
        percentiles alone do in none to 95 %.
        """
        if n == 0:
            return Estimate(None, None, None, 0), None
        cell_U = np.flatnonzero(self._n)
        gap_U = self._score_sum[cell_U] / self._n[cell_U] - cell_U % 2
        start_M = np.flatnonzero(np.diff(cell_U // (2 * _N_FINE), prepend=-1))

        def error(n_rU: Counts) -> npt.NDArray[np.float64]:
            gap_rM = np.add.reduceat(n_rU * gap_U, start_M, axis=1)
            total_r = n_rU.sum(1)
            return np.where(total_r > 0, np.abs(gap_rM).sum(1) / np.maximum(total_r, 1), np.nan)

        value = gap / n
        high = float(np.nanquantile(bootstrap.replicate(self._n[cell_U], error), 0.975))
        chance_R = self._errors_by_chance(bootstrap)
        low = 0.0 if value <= np.quantile(chance_R, 0.975) else max(0.0, 2 * value - high)
        return Estimate(value, min(low, value), max(value, high), n), float(chance_R.mean())

    def _errors_by_chance(self, bootstrap: Bootstrap) -> npt.NDArray[np.float64]:
        """Give errors [R] of answers that have these scores, and are right as often as those say."""
        n_U, score_sum_U = self._n.reshape(-1, 2).sum(1), self._score_sum.reshape(-1, 2).sum(1)
        cell_U = np.flatnonzero(n_U)
        n_U, score_U = n_U[cell_U], np.minimum(score_sum_U[cell_U] / n_U[cell_U], 1.0)
        start_M = np.flatnonzero(np.diff(cell_U // _N_FINE, prepend=-1))
        n_right_RU = np.random.default_rng(bootstrap.seed).binomial(n_U, score_U, (bootstrap.n_replicates, len(n_U)))
        gap_RM = np.add.reduceat(n_U * score_U - n_right_RU, start_M, axis=1)
        error_R: npt.NDArray[np.float64] = np.abs(gap_RM).sum(1) / n_U.sum()
        return error_R
