"""Scores in a bounded number of bins that are fine where scores crowd: near 0 and near 1.

A softmax of 100 times a cosine is above 0.999 for most images, and a sigmoid below 0.001, so bins of equal width
would hold nearly all of them in one.  These are of equal width in the logarithm: within 1/128 of the distance to 0
or to 1, whichever is nearer.  The bits of a float are in that order already.

Shape legend: N scores, Z bins.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Bins = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

_SHIFT = 16
"""Bits of the mantissa that are dropped: 23 less the 7 that make 128 bins an octave."""
_LOWEST = (127 - 41) << 7
"""The bits of 2 ** -41, so shortened; what is smaller shares the first bin with 0."""
_N_HALF = ((127 - 1) << 7) - _LOWEST + 2
N_BINS = 2 * _N_HALF
"""10,244: no score and two outputs of 40 M rows are counted in 160 kB."""


def to_bins(score_N: npt.NDArray[np.floating]) -> Bins:
    """Give the bin of each score, ascending with it; scores beyond 0 and 1 are taken for 0 and 1, NaN for 0."""
    score_N = np.clip(np.nan_to_num(score_N.astype(np.float32), nan=0.0), 0.0, 1.0)
    # 1 - score is exact above 0.5.
    bin_N: Bins = np.where(score_N < 0.5, _from_zero(score_N), N_BINS - 1 - _from_zero(1 - score_N))
    return bin_N


def _from_zero(score_N: Scores) -> Bins:
    bits_N = (score_N.astype(np.float32).view(np.uint32) >> _SHIFT).astype(np.int64)
    nearest_N: Bins = np.maximum(bits_N - _LOWEST + 1, 0)
    return nearest_N


@cache
def first_of_bins() -> Scores:
    """Give the smallest score of each bin [Z]; of a bin that no float32 falls into, that of the next which has some."""
    lower_Z = np.arange(_N_HALF, dtype=np.uint32) + np.uint32(_LOWEST - 1)
    start_Z: Scores = (lower_Z << np.uint32(_SHIFT)).astype(np.uint32).view(np.float32).copy()
    start_Z[0] = 0.0
    # Mirrored, a bin begins just above 1 less the end of its image.
    upper_Z = np.append(np.float32(0.5), (1 - start_Z[:0:-1].astype(np.float64)).astype(np.float32))
    wanted_Z = np.arange(_N_HALF, N_BINS)
    for _ in range(2):
        upper_Z = np.where(to_bins(upper_Z) < wanted_Z, np.nextafter(upper_Z, np.float32(2)), upper_Z)
    first_Z: Scores = np.append(start_Z, np.minimum(upper_Z, np.float32(1))).astype(np.float32)
    return first_Z
