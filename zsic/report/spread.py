"""How scores, similarities and margins are spread, for each label, in bins that are counted as rows stream by.

Shape legend: N rows, C labels, M bins.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic.report.selection import Integers

MOST_BARS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Rows by label and bin; bin m holds values from `low + m * width`, the last one its upper bound as well."""

    low: float
    high: float
    n_CM: Integers

    @property
    def total_M(self) -> Integers:
        """Rows by bin, of all labels."""
        total_M: Integers = self.n_CM.sum(0)
        return total_M

    def trim(self) -> "Histogram":
        """Leave out empty bins at both ends, and join neighbours until there are few enough to draw."""
        used = np.flatnonzero(self.total_M)
        if len(used) == 0:
            return self
        n_CM, width = self.n_CM, (self.high - self.low) / self.n_CM.shape[1]
        joined = -(-(int(used[-1]) + 1 - int(used[0])) // MOST_BARS)
        first = int(used[0]) // joined * joined
        n_bars = -(-(int(used[-1]) + 1 - first) // joined)
        n_CM = np.pad(n_CM, ((0, 0), (0, joined)))[:, first : first + n_bars * joined]
        low = self.low + first * width
        return Histogram(low, low + n_bars * joined * width, n_CM.reshape(len(n_CM), n_bars, joined).sum(2))


class Spread:
    """The counts so far; labels may still be added."""

    def __init__(self, low: float, high: float, n_bins: int) -> None:
        self._low, self._high, self._n_bins = low, high, n_bins
        self._n_CM: Integers = np.zeros((0, n_bins), np.int64)

    def add(self, label_N: Integers, value_N: npt.NDArray[np.floating], n_labels: int) -> None:
        """Count rows; those without a value (NaN) are left out, and values beyond the bounds go to the last bins."""
        has_value_N = np.isfinite(value_N)
        label_N, value_N = label_N[has_value_N], value_N[has_value_N].astype(np.float64)
        share_N = (value_N - self._low) / (self._high - self._low)
        bin_N = np.clip((share_N * self._n_bins).astype(np.int64), 0, self._n_bins - 1)
        n_CM = np.bincount(label_N * self._n_bins + bin_N, minlength=n_labels * self._n_bins)
        n_CM = n_CM.reshape(n_labels, self._n_bins)
        n_CM[: len(self._n_CM)] += self._n_CM
        self._n_CM = n_CM

    def close(self) -> Histogram:
        """Give the result."""
        return Histogram(self._low, self._high, self._n_CM).trim()
