"""Intervals by the Poisson bootstrap, of figures that are made from counts.

A Poisson bootstrap (Chamandy et al. 2012) gives every row a weight drawn from a Poisson distribution of mean 1.  The
weights of the n rows that a cell counts add up to a draw of mean n.  So it is enough to draw once for each cell at
the end: the replicates have the distribution they would have if each row had been weighted, at a cost that does not
know the number of rows.

Shape legend: R replicates, U cells that are not empty.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

_AT_ONCE = 1 << 21
"""Draws in memory at once, 16 MB."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How often is drawn, and from where; the same seed gives the same intervals."""

    n_replicates: int = 200
    seed: int = 0

    def draw(self, n_U: Counts) -> Iterator[Counts]:
        """Yield the replicates of some counts, as many at once [r, U] as memory should hold."""
        rng = np.random.default_rng(self.seed)
        at_once = max(1, min(self.n_replicates, _AT_ONCE // max(1, len(n_U))))
        for begin in range(0, self.n_replicates, at_once):
            yield rng.poisson(n_U, (min(at_once, self.n_replicates - begin), len(n_U)))

    def replicate(self, n_U: Counts, figure: Callable[[Counts], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Give the replicates [R] (or [R, ...]) of a figure that is made from counts [r, U]."""
        return np.concatenate([figure(n_rU) for n_rU in self.draw(n_U)])
