"""What a threshold on the score would buy: fewer answers, and more of them right.

Shape legend: N answers, Z bins of score, U bins that hold something, r replicates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.bootstrap import Bootstrap, Counts
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.grid import N_BINS, first_of_bins, to_bins

N_POINTS = 100
"""Points of the curve, at most; about evenly spaced in coverage."""
_N_EXACT = 1 << 12


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """The answers whose score is at least `threshold`."""

    threshold: float
    coverage: float
    """Their share in all readable images, those without an answer among them."""
    accuracy: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {"threshold": self.threshold, "coverage": self.coverage, "accuracy": self.accuracy.to_dict()}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Accuracy against coverage, over thresholds of the score."""

    aurc: Estimate
    """The area under the curve of risk against coverage (Geifman and El-Yaniv 2017), over the answers there are.

    It is the mean share of wrong answers, over all thresholds: 0 is best, the share of wrong answers what a
    score without information gives.
    """
    points: tuple[CoveragePoint, ...]
    """From the highest threshold down to all answers; counts are exact."""

    def at(self, coverage: float) -> CoveragePoint | None:
        """Give the first point that covers at least such a share; None where none does."""
        return next((point for point in self.points if point.coverage >= coverage), None)

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {"aurc": self.aurc.to_dict(), "points": [point.to_dict() for point in self.points]}


class CoverageCounts:
    """The answers so far, by bin of score."""

    def __init__(self) -> None:
        self._n_right_Z = np.zeros(N_BINS, np.int64)
        self._n_wrong_Z = np.zeros(N_BINS, np.int64)

    def add(self, score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_]) -> None:
        """Count answers."""
        bin_N = to_bins(score_N)
        self._n_right_Z += np.bincount(bin_N[is_right_N], minlength=N_BINS)
        self._n_wrong_Z += np.bincount(bin_N[~is_right_N], minlength=N_BINS)

    def close(self, bootstrap: Bootstrap, n_readable: int) -> Coverage:
        """Give the result; `n_readable` images could have had an answer."""
        bin_U = np.flatnonzero(self._n_right_Z + self._n_wrong_Z)[::-1]
        right_U, wrong_U = self._n_right_Z[bin_U], self._n_wrong_Z[bin_U]
        n = int(right_U.sum() + wrong_U.sum())
        if n == 0:
            return Coverage(Estimate(None, None, None, 0), ())

        def area(n_r2U: Counts) -> npt.NDArray[np.float64]:
            return risk_area(*np.split(n_r2U, 2, axis=1))

        both_2U = np.concatenate([right_U, wrong_U])
        value = float(area(both_2U[None])[0])
        aurc = Estimate.from_replicates(value, bootstrap.replicate(both_2U, area), n)
        return Coverage(aurc, tuple(_points(bin_U, right_U, wrong_U, n_readable)))


def risk_area(right_rU: Counts, wrong_rU: Counts) -> npt.NDArray[np.float64]:
    """Give the mean, over the answers from the best score down, of the share of wrong ones so far; NaN of none.

    Answers of one bin are in no order: the mean over all their orders is taken.
    """
    n_rU = right_rU + wrong_rU
    above_rU = np.cumsum(n_rU, axis=1) - n_rU
    wrong_above_rU = np.cumsum(wrong_rU, axis=1) - wrong_rU
    share_rU = wrong_rU / np.maximum(n_rU, 1)
    # The sum of (W + s j) / (A + j) over j = 1 ... n, where W of A answers above are wrong, and s of these.
    area_rU = wrong_rU + (wrong_above_rU - share_rU * above_rU) * (_harmonic(above_rU + n_rU) - _harmonic(above_rU))
    total_r = n_rU.sum(1)
    return np.where(total_r > 0, area_rU.sum(1) / np.maximum(total_r, 1), np.nan)


_EXACT = np.append(0.0, np.cumsum(1 / np.arange(1, _N_EXACT)))


def _harmonic(n: Counts) -> npt.NDArray[np.float64]:
    """1 + 1/2 + ... + 1/n, by Euler's expansion where n is large."""
    large = np.maximum(n, _N_EXACT).astype(np.float64)
    expanded = np.log(large) + np.euler_gamma + 1 / (2 * large) - 1 / (12 * large * large)
    return np.where(n < _N_EXACT, _EXACT[np.minimum(n, _N_EXACT - 1)], expanded)


def _points(bin_U: Counts, right_U: Counts, wrong_U: Counts, n_readable: int) -> list[CoveragePoint]:
    right_U, n_U = np.cumsum(right_U), np.cumsum(right_U + wrong_U)
    # The first bin that reaches each step of coverage.
    steps = np.arange(1, N_POINTS + 1) * n_U[-1] / N_POINTS
    picked = np.unique(np.minimum(np.searchsorted(n_U, steps - 1e-9), len(n_U) - 1))
    first_Z = first_of_bins()
    return [
        CoveragePoint(float(first_Z[bin_U[i]]), int(n_U[i]) / n_readable, Accuracy(int(right_U[i]), int(n_U[i])))
        for i in picked.tolist()
    ]
