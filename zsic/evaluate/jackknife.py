"""Intervals by leaving out groups of rows, for figures in which one image counts in several places.

An image with several labels stands in the counts of all of them, so these cannot be drawn one by one.  The rows
are dealt out to groups instead, and the figure is computed without each group in turn: the delete-a-group jackknife
(Kott 2001), with Student's t of one degree of freedom less than there are groups.

Shape legend: G groups.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt

from zsic.evaluate.estimate import Estimate

N_GROUPS = 20
_T = 2.0930240544
"""Quantile of Student's t, 19 degrees of freedom, that leaves 2.5 % on either side."""


def deal(n_before: int, n: int) -> npt.NDArray[np.int64]:
    """Give the groups of `n` rows that follow `n_before` others: by turns, in another order in each round.

    The order must not hang together with that of the source, where every 20th image may be of one kind.
    """
    at = np.arange(n_before, n_before + n, dtype=np.uint64)
    # Weyl's sequence, mixed as in SplitMix64 (Steele et al. 2014): the same for the same row on every machine.
    mixed = (at + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    group: npt.NDArray[np.int64] = ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(N_GROUPS)).astype(np.int64)
    return group


def estimate(value: float | None, without_G: npt.NDArray[np.float64], n: int) -> Estimate:
    """Make an estimate from a figure of all rows, and the same figure without each group."""
    without_G = without_G[np.isfinite(without_G)]
    if value is None or len(without_G) < N_GROUPS:
        return Estimate(value, None, None, n)
    variance = (N_GROUPS - 1) / N_GROUPS * float(((without_G - without_G.mean()) ** 2).sum())
    half = _T * sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), n)
