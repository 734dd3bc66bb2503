"""How far a count of right answers can be trusted."""

from dataclasses import dataclass
from math import sqrt

_Z = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % on either side."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers among all answers."""

    n_right: int
    n: int

    @property
    def value(self) -> float | None:
        """The share that is right, 0 to 1; None where there is nothing to count."""
        return self.n_right / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927); right for few images and for shares near 0 and 1 as well."""
        if self.n == 0:
            return 0.0, 1.0
        share, z2_n = self.n_right / self.n, _Z * _Z / self.n
        centre = (share + z2_n / 2) / (1 + z2_n)
        half = sqrt(share * (1 - share) * z2_n + z2_n * z2_n / 4) / (1 + z2_n)
        # Rounding may put the upper bound of a share of 1 just below it.
        return max(0.0, centre - half), min(1.0, max(centre + half, share))

    def to_dict(self) -> dict[str, float | int | None]:
        """Give counts, share and bounds for JSON."""
        low, high = self.interval
        return {"n_right": self.n_right, "n": self.n, "value": self.value, "low": low, "high": high}

    def __str__(self) -> str:
        """Percent, with the interval, as `91.2 % (89.3 to 92.8)`."""
        if self.value is None:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
