"""How sure a model should sound, and where it had better say nothing: learnt from pictures whose label is known.

A calibration is a line through the logits, ``slope * logit + intercept``, with a positive slope: answers, their order
and their similarities stay, and scores move.  So a head with scale, bias and offsets becomes one with slope * scale,
slope * bias + intercept and slope * offsets.

Shape legend: N pictures, B of them at a time, C labels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf, log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zsic.core.errors import SpecError
from zsic.core.reliability import Reliability
from zsic.core.scoring import Link

SLOPES = (0.01, 100.0)
"""Temperatures of 100 to 0.01; beyond, all scores are alike, or 0 and 1."""

# Platt has 1, which with 20 pictures of 144 labels left an error of 0.18, and this one 0.04.
_PRIOR_PAIRS = 0.1

_CELLS_AT_ONCE = 2**20

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The line, and how well scores fit the truth without and with it, on the pictures that it was learnt from."""

    link: Link
    slope: float
    intercept: float
    """0 under softmax, where it would change nothing."""
    at_bound: bool
    """Whether the slope is a bound of `SLOPES`: then these pictures do not tell it, and it had better not be used."""
    n_rows: int
    loss_before: float
    """Mean negative log-likelihood in nats: of a picture under softmax, of a picture with a label under sigmoid."""
    loss_after: float
    error_before: float
    """Expected calibration error of the best label's score (`Reliability.error`)."""
    error_after: float

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        return 1 / self.slope


class Threshold(NamedTuple):
    """The least value that is kept, and the share of the sample that is below it."""

    value: float
    rejected: float


def fit_temperature(
    logit_NC: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer], *, prior_rows: float = 5.0
) -> Calibration:
    """Find the temperature under which softmax scores fit the true labels best (Guo et al. 2017).

    `prior_rows` more pictures like these are thought to be there, of which the scores are right as they are: a few
    pictures are often all answered rightly, and would ask for a temperature of 0.  The loss is convex in the
    temperature's inverse, and its minimum is found to rounding, within `SLOPES`.  Raises `SpecError` if there is no
    row.
    """
    rows = _Rows.check(logit_NC, truth_N)
    share = prior_rows / rows.n

    def rise(slope: float) -> tuple[float, float]:
        first = second = 0.0
        for logit_BC, truth_B in rows.batches():
            logit_BC = logit_BC - logit_BC.max(axis=1, keepdims=True)
            score_BC = _link(slope * logit_BC, "softmax")
            mean_B = (score_BC * logit_BC).sum(axis=1)
            wanted_B = _pick(logit_BC, truth_B)
            if share:
                wanted_B = wanted_B + share * (_link(logit_BC, "softmax") * logit_BC).sum(axis=1)
            first += float(((1 + share) * mean_B - wanted_B).sum())
            second += (1 + share) * float((score_BC * np.square(logit_BC - mean_B[:, None])).sum())
        return first, second

    low, high = rows.range()
    if prior_rows == 0 and high > low and rows.all_right():
        return rows.judge("softmax", SLOPES[1], 0.0)  # where the derivative is lost in rounding
    return rows.judge("softmax", _find_root(rise, *SLOPES, start=1.0), 0.0)


def fit_platt(logit_NC: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]) -> Calibration:
    """Find the line under which sigmoid scores fit best, each picture with each label being right or wrong.

    As in Platt (1999) the targets are not quite 1 and 0, as if there were some more pairs of either kind, so that
    there is a minimum even where right and wrong do not overlap.  The loss is convex in both numbers, and the minimum
    is found to rounding, within `SLOPES`.  Raises `SpecError` if there is no row.
    """
    rows = _Rows.check(logit_NC, truth_N)
    n_right, n_wrong = rows.n, rows.n * (rows.n_labels - 1)
    target_right = (n_right + _PRIOR_PAIRS) / (n_right + 2 * _PRIOR_PAIRS)
    target_wrong = _PRIOR_PAIRS / (n_wrong + 2 * _PRIOR_PAIRS)
    mean = (n_right * target_right + n_wrong * target_wrong) / (n_right + n_wrong)
    base, (low, high) = log(mean / (1 - mean)), rows.range()

    def terms(slope: float, intercept: float) -> tuple[float, float, float, float, float]:
        """The loss's derivatives: by slope, by intercept, twice by slope, by both, twice by intercept."""
        sum_5 = np.zeros(5)
        for logit_BC, truth_B in rows.batches():
            score_BC = _link(slope * logit_BC + intercept, "sigmoid")
            weight_BC, gap_BC = score_BC * (1 - score_BC), score_BC - target_wrong
            gap_BC[np.arange(len(truth_B)), truth_B] -= target_right - target_wrong
            weighted_BC = weight_BC * logit_BC
            pieces = (gap_BC * logit_BC, gap_BC, weighted_BC * logit_BC, weighted_BC, weight_BC)
            sum_5 += [piece.sum() for piece in pieces]
        by_slope, by_intercept, twice_slope, both, twice_intercept = sum_5.tolist()
        return by_slope, by_intercept, twice_slope, both, twice_intercept

    def best_intercept(slope: float) -> float:
        def rise(intercept: float) -> tuple[float, float]:
            _, by_intercept, _, _, twice_intercept = terms(slope, intercept)
            return by_intercept, twice_intercept

        # With this intercept no score is above, or none below, the mean of the targets.
        bounds = base - slope * high, base - slope * low
        return _find_root(rise, *bounds, start=sum(bounds) / 2)

    def rise(slope: float) -> tuple[float, float]:
        by_slope, _, twice_slope, both, twice_intercept = terms(slope, best_intercept(slope))
        return by_slope, twice_slope - both * both / twice_intercept if twice_intercept else 0.0

    slope = _find_root(rise, *SLOPES, start=1.0) if high > low else 1.0
    return rows.judge("sigmoid", slope, best_intercept(slope))


def threshold_for(statistic_N: npt.NDArray[np.floating], false_reject: float) -> Threshold:
    """Find the highest threshold below which at most a share `false_reject` of the sample lies.

    The sample is of what should be kept: scores, similarities or margins of right answers.  What equals the threshold
    is kept; so where values are equal fewer may be rejected than asked for, and never more.  Raises `SpecError` if
    there is no value, one is NaN, or the share is not in 0 to 1.
    """
    if not 0 <= false_reject <= 1:
        raise SpecError(f"the share to reject is {false_reject}; use 0 to 1")
    if len(statistic_N) == 0 or np.isnan(statistic_N).any():
        raise SpecError("there is no right answer to learn a threshold from, or one has no number")
    sorted_N = np.sort(statistic_N)
    n_rejected = int(false_reject * len(sorted_N) + 1e-9)  # 0.29 of 100 are 29
    value = float(sorted_N[n_rejected]) if n_rejected < len(sorted_N) else inf
    return Threshold(value, float((sorted_N < value).mean()))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Logits and true labels, read in float64 and in batches."""

    logit_NC: npt.NDArray[np.floating]
    truth_N: _Integers

    @classmethod
    def check(cls, logit_NC: npt.NDArray[np.floating], truth_N: npt.NDArray[np.integer]) -> "_Rows":
        if len(truth_N) == 0:
            raise SpecError(
                "there is no picture with a known label to calibrate with; check that the truth's keys match"
            )
        return cls(logit_NC, truth_N.astype(np.int64))

    @property
    def n(self) -> int:
        return len(self.truth_N)

    @property
    def n_labels(self) -> int:
        return int(self.logit_NC.shape[1])

    def batches(self) -> Iterator[tuple[_Floats, _Integers]]:
        n_at_once = ceil(_CELLS_AT_ONCE / self.n_labels)
        for begin in range(0, self.n, n_at_once):
            chunk = slice(begin, begin + n_at_once)
            yield self.logit_NC[chunk].astype(np.float64), self.truth_N[chunk]

    def all_right(self) -> bool:
        """Whether no label has a greater logit than the true one, in any row."""
        return all((_pick(x_BC, truth_B) == x_BC.max(axis=1)).all() for x_BC, truth_B in self.batches())

    def range(self) -> tuple[float, float]:
        """The least and the greatest logit."""
        return float(self.logit_NC.min()), float(self.logit_NC.max())

    def judge(self, link: Link, slope: float, intercept: float) -> Calibration:
        """Measure what the line is worth."""
        loss_before, error_before = self._measure(link, 1.0, 0.0)
        loss_after, error_after = self._measure(link, slope, intercept)
        at_bound = slope in SLOPES
        return Calibration(link, slope, intercept, at_bound, self.n, loss_before, loss_after, error_before, error_after)

    def _measure(self, link: Link, slope: float, intercept: float) -> tuple[float, float]:
        """Mean loss and calibration error."""
        loss, n, best, right = 0.0, 0, [], []
        for logit_BC, truth_B in self.batches():
            line_BC = slope * logit_BC + intercept
            if link == "softmax":
                top_B = line_BC.max(axis=1)
                loss_B = top_B + np.log(np.exp(line_BC - top_B[:, None]).sum(axis=1)) - _pick(line_BC, truth_B)
                loss, n = loss + float(loss_B.sum()), n + len(truth_B)
            else:
                loss += float(np.logaddexp(0, line_BC).sum() - _pick(line_BC, truth_B).sum())
                n += line_BC.size
            answer_B = logit_BC.argmax(axis=1)
            best.append(_pick(_link(line_BC, link), answer_B))
            right.append(answer_B == truth_B)
        error = Reliability.count(np.concatenate(best), np.concatenate(right)).error
        return loss / n, error or 0.0


def _link(logit_BC: _Floats, link: Link) -> _Floats:
    """Scores, with no overflow."""
    score_BC: _Floats
    if link == "softmax":
        score_BC = np.exp(logit_BC - logit_BC.max(axis=1, keepdims=True))
        score_BC /= score_BC.sum(axis=1, keepdims=True)
    else:
        score_BC = 0.5 * (1 + np.tanh(0.5 * logit_BC))
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
