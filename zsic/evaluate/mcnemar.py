"""Whether one output is right more often than another, on the same images."""

from dataclasses import dataclass
from math import comb, erfc, sqrt
from typing import Any

from zsic.evaluate.accuracy import Accuracy

_Z = 1.959963984540054
_N_EXACT = 1_000
"""Images on which one alone is right, up to which the test is exact; beyond, the two p-values agree in two digits."""


@dataclass(frozen=True, slots=True)
class PairedAccuracy:
    """Images by which of two outputs is right about them."""

    n_both: int
    n_gained: int
    """The output is right, and the one that it is compared with is not."""
    n_lost: int
    """The other way round."""
    n_neither: int

    @property
    def n(self) -> int:
        """Images in all."""
        return self.n_both + self.n_gained + self.n_lost + self.n_neither

    @property
    def output(self) -> Accuracy:
        """Of the output."""
        return Accuracy(self.n_both + self.n_gained, self.n)

    @property
    def against(self) -> Accuracy:
        """Of the one that it is compared with."""
        return Accuracy(self.n_both + self.n_lost, self.n)

    @property
    def difference(self) -> float | None:
        """Accuracy of the output less that of the other; None where there are no images."""
        return (self.n_gained - self.n_lost) / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, of Bonett and Price (2012); right for few images as well."""
        n = self.n + 2
        gained, lost = (self.n_gained + 1) / n, (self.n_lost + 1) / n
        half = _Z * sqrt((gained + lost - (gained - lost) ** 2) / n)
        return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)

    @property
    def p_value(self) -> float:
        """McNemar's test (1947) that neither is right more often: exact for few images, else by chi square.

        1 where the outputs are right about the same images.
        """
        n, least = self.n_gained + self.n_lost, min(self.n_gained, self.n_lost)
        if n == 0:
            return 1.0
        if n <= _N_EXACT:
            return min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / (1 << n))
        # With the correction for continuity (Edwards 1948).
        gap = max(0, abs(self.n_gained - self.n_lost) - 1)
        return erfc(gap / sqrt(2 * n))

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        low, high = self.interval
        return {
            "n": self.n,
            "n_both": self.n_both,
            "n_gained": self.n_gained,
            "n_lost": self.n_lost,
            "n_neither": self.n_neither,
            "output": self.output.to_dict(),
            "against": self.against.to_dict(),
            "difference": self.difference,
            "low": low,
            "high": high,
            "p_value": self.p_value,
        }

    def __str__(self) -> str:
        """Percentage points, with the interval, as `+1.2 (+0.4 to +2.0)`."""
        if self.difference is None:
            return "-"
        low, high = self.interval
        return f"{100 * self.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
