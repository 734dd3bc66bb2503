"""How sure a softmax should sound: a temperature.

Shape legend: N pictures, B of them at a time, C labels.
"""

from collections.abc import Callable
from math import inf

import numpy as np
import numpy.typing as npt

from zsic.core.reliability import Reliability
from zsic.models.calibration import CELLS_AT_ONCE, SLOPES, Calibration, batches, require_pictures

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.integer]


def fit_temperature(
    logit_NC: npt.NDArray[np.floating],
    truth_N: _Integers,
    *,
    prior_rows: float = 5.0,
    cells_at_once: int = CELLS_AT_ONCE,
) -> Calibration:
    """Find the temperature under which softmax scores fit the true labels best (Guo et al. 2017).

    `prior_rows` more pictures like these are thought to be there, of which the scores are right as they are: a few
    pictures are often all answered rightly, and would ask for a temperature of 0.  The loss is convex in the
    temperature's inverse, and its minimum is found to rounding, within `SLOPES`.  Raises `SpecError` if there is no
    row.
    """
    require_pictures(len(truth_N))
    share = prior_rows / len(truth_N)

    def rise(slope: float) -> tuple[float, float]:
        first = second = 0.0
        for logit_BC, truth_B in batches(logit_NC, truth_N, cells_at_once):
            logit_BC = logit_BC - logit_BC.max(axis=1, keepdims=True)
            score_BC = _softmax(slope * logit_BC)
            mean_B = (score_BC * logit_BC).sum(axis=1)
            wanted_B = _pick(logit_BC, truth_B)
            if share:
                wanted_B = wanted_B + share * (_softmax(logit_BC) * logit_BC).sum(axis=1)
            first += float(((1 + share) * mean_B - wanted_B).sum())
            second += (1 + share) * float((score_BC * np.square(logit_BC - mean_B[:, None])).sum())
        return first, second

    if prior_rows == 0 and logit_NC.max() > logit_NC.min() and _all_right(logit_NC, truth_N, cells_at_once):
        slope = SLOPES[1]  # where the derivative is lost in rounding
    else:
        slope = _find_root(rise, *SLOPES, start=1.0)
    before, after = (_judge(logit_NC, truth_N, each, cells_at_once) for each in (1.0, slope))
    return Calibration("softmax", slope, 0.0, slope in SLOPES, len(truth_N), before[0], after[0], before[1], after[1])


def _all_right(logit_NC: npt.NDArray[np.floating], truth_N: _Integers, cells_at_once: int) -> bool:
    """Whether no label has a greater logit than the true one, in any row."""
    parts = batches(logit_NC, truth_N, cells_at_once)
    return all((_pick(x_BC, truth_B) == x_BC.max(axis=1)).all() for x_BC, truth_B in parts)


def _judge(
    logit_NC: npt.NDArray[np.floating], truth_N: _Integers, slope: float, cells_at_once: int
) -> tuple[float, float]:
    """Mean loss of a picture, and the calibration error of its best label."""
    loss, best, right = 0.0, [], []
    for logit_BC, truth_B in batches(logit_NC, truth_N, cells_at_once):
        score_BC, answer_B = _softmax(slope * logit_BC), logit_BC.argmax(axis=1)
        above_BC = slope * (logit_BC - logit_BC.max(axis=1, keepdims=True))
        loss += float((np.log(np.exp(above_BC).sum(axis=1)) - _pick(above_BC, truth_B)).sum())
        best.append(_pick(score_BC, answer_B))
        right.append(answer_B == truth_B)
    error = Reliability.count(np.concatenate(best), np.concatenate(right)).error
    return loss / len(truth_N), error or 0.0


def _softmax(logit_BC: _Floats) -> _Floats:
    score_BC: _Floats = np.exp(logit_BC - logit_BC.max(axis=1, keepdims=True))
    score_BC /= score_BC.sum(axis=1, keepdims=True)
    return score_BC


def _pick(value_BC: _Floats, index_B: _Integers) -> _Floats:
    """One value of each row."""
    return np.take_along_axis(value_BC, index_B[:, None], axis=1)[:, 0]


def _find_root(rise: Callable[[float], tuple[float, float]], low: float, high: float, start: float) -> float:
    """Where an increasing function is 0, given it with its derivative; a bound where it is not 0 between them.

    Newton's steps, and halves of what is left where these lead out of it.
    """
    if rise(low)[0] > 0:
        return low
    if rise(high)[0] < 0:
        return high
    x = start
    while True:
        value, slope = rise(x)
        if value == 0:
            return x
        low, high = (low, x) if value > 0 else (x, high)
        step = x - value / slope if slope > 0 else inf
        after = step if low < step < high else (low + high) / 2
        if abs(after - x) <= 1e-12 * max(1.0, abs(x)):
            return after
        x = after
