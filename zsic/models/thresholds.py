"""Where a model had better say nothing: thresholds learnt from answers that are known to be right or wrong.

Shape legend: N answers.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zsic.core.errors import SpecError

_Values = npt.NDArray[np.floating]
_Bools = npt.NDArray[np.bool_]


class Threshold(NamedTuple):
    """The least value that is kept, and what that does to the sample."""

    value: float
    n_right: int
    """Right answers of the sample."""
    rejected: float
    """The share of them that is below."""
    n_kept: int
    """Answers that are kept, right and wrong."""
    precision: float
    """The share of them that is right; 0 where none is kept."""


def threshold_for(value_N: _Values, right_N: _Bools, false_reject: float) -> Threshold:
    """Find the highest threshold below which at most a share `false_reject` of the right answers lies.

    What equals the threshold is kept; so where values are equal fewer may be rejected than asked for, and never more.
    Raises `SpecError` if no answer is right, or the share is not from 0 to below 1.
    """
    if not 0 <= false_reject < 1:
        raise SpecError(f"the share to reject is {false_reject}; use 0 up to, and without, 1: all would be rejected")
    sorted_N = np.sort(_check(value_N, right_N)[right_N])
    n_rejected = int(false_reject * len(sorted_N) + 1e-9)  # 0.29 of 100 are 29
    return _measure(value_N, right_N, float(sorted_N[min(n_rejected, len(sorted_N) - 1)]))


def threshold_of_precision(value_N: _Values, right_N: _Bools, precision: float) -> Threshold:
    """Find the lowest threshold from which on at least a share `precision` of the answers is right.

    Raises `SpecError` if no threshold does that, or the share is not in 0 to 1.
    """
    if not 0 <= precision <= 1:
        raise SpecError(f"the share that is to be right is {precision}; use 0 to 1")
    order_N = np.argsort(-_check(value_N, right_N), kind="stable")
    sorted_N, share_N = value_N[order_N], np.cumsum(right_N[order_N]) / np.arange(1, len(order_N) + 1)
    # Equal values are kept together, so a threshold is at the last of them.
    is_last_N = np.append(sorted_N[1:] < sorted_N[:-1], True)
    good_N = np.flatnonzero(is_last_N & (share_N >= precision))
    if not len(good_N):
        raise SpecError(
            f"no threshold leaves answers of which {precision:.4g} are right; the best leaves "
            f"{share_N[is_last_N].max():.4g}"
        )
    return _measure(value_N, right_N, float(sorted_N[good_N[-1]]))


def _check(value_N: _Values, right_N: _Bools) -> _Values:
    if not right_N.any() or np.isnan(value_N).any():
        raise SpecError("there is no right answer to learn a threshold from, or one has no number")
    return value_N


def _measure(value_N: _Values, right_N: _Bools, value: float) -> Threshold:
    kept_N = value_N >= value
    n_kept, n_right, n_kept_right = int(kept_N.sum()), int(right_N.sum()), int((kept_N & right_N).sum())
    return Threshold(value, n_right, 1 - n_kept_right / n_right, n_kept, n_kept_right / n_kept if n_kept else 0.0)
