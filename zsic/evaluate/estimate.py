"""A figure with its uncertainty, for what is no plain share of a count; those are `Accuracy`."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure from 0 to 1 and its 95 % interval; all None where there is nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """What it was counted from: rows, or labels for a mean over labels."""

    @classmethod
    def from_replicates(cls, value: float | None, value_R: npt.NDArray[np.float64], n: int) -> Self:
        """Take the bounds from the replicates of a bootstrap: their 2.5 and 97.5 percentiles, about the figure.

        Replicates that are not finite had nothing to count and are left out.  Their mean is not the figure: where
        labels are rare, some are drawn not at all.  So the percentiles are moved by the difference.  Where all are the
        same, as where all answers are right, they tell no bounds.
        """
        finite_R = value_R[np.isfinite(value_R)]
        if value is None or len(finite_R) == 0 or np.ptp(finite_R) == 0:
            return cls(value, None, None, n)
        low, high = (value + np.quantile(finite_R, (0.025, 0.975)) - finite_R.mean()).tolist()
        return cls(value, max(0.0, min(low, value)), min(1.0, max(high, value)), n)

    def to_dict(self) -> dict[str, float | int | None]:
        """Give figure and bounds for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        """Percent, with the interval, as `91.2 % (89.3 to 92.8)`."""
        if self.value is None:
            return "-"
        shown = f"{100 * self.value:.1f} %"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} ({100 * self.low:.1f} to {100 * self.high:.1f})"
