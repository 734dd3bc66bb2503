"""How sure a sigmoid should sound: a line through the logits, and where images have several labels a shift for each.

Labels of one set differ in how easily their prompts fit anything at all, which no line for all of them mends.

Shape legend: N pictures, B of them at a time, C labels, P parameters: the slope, the intercept, then a shift a label.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zsic.core.reliability import Reliability
from zsic.models.calibration import CELLS_AT_ONCE, SLOPES, Calibration, batches, require_pictures

SHIFT_SPREAD = 2.0
"""Standard deviation that labels' shifts are expected to have, in logits: few pictures of a label weigh little."""

# Platt has 1, which with 20 pictures of 144 labels left an error of 0.18, and this one 0.04.
_PRIOR_PAIRS = 0.1

_TOLERANCE = 1e-12
_MOST_STEPS = 200

_Logits = npt.NDArray[np.floating]
_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]


def fit_platt(
    logit_NC: _Logits, wanted_NC: _Bools, *, shift_spread: float = 0.0, cells_at_once: int = CELLS_AT_ONCE
) -> Calibration:
    """Find the line under which sigmoid scores fit best, each picture with each label being right or wrong.

    `wanted_NC` says which labels are true of which picture.  As in Platt (1999) the targets are not quite 1 and 0, as
    if there were some more pairs of either kind, so that there is a minimum even where right and wrong do not overlap.
    With `shift_spread` each label has a shift besides, a normal prior of that width on it.  The loss is convex, and its
    minimum is found to rounding; a slope beyond `SLOPES` is told by `at_bound`.  Raises `SpecError` if no picture has a
    label.
    """
    require_pictures(int(wanted_NC.sum()))

    def measure(parameter_P: _Floats) -> _Loss:
        return _measure(logit_NC, wanted_NC, parameter_P, shift_spread, cells_at_once)

    parameter_P = _start(logit_NC, wanted_NC)
    here = measure(parameter_P)
    for _ in range(_MOST_STEPS):
        step_P = here.newton()
        gain = float(-here.gradient_P @ step_P)
        if gain <= _TOLERANCE * len(wanted_NC):
            break
        # The whole step may lead too far where scores are near 0 and 1; a small enough one never does.
        part, after = 1.0, measure(parameter_P + step_P)
        while after.value > here.value - 1e-4 * part * gain and part > 1e-6:
            part /= 2
            after = measure(parameter_P + part * step_P)
        parameter_P, here = parameter_P + part * step_P, after
    parameter_P[0] = np.clip(parameter_P[0], *SLOPES)
    slope, intercept, *shifts = parameter_P.tolist()
    before = _judge(logit_NC, wanted_NC, np.eye(1, len(parameter_P))[0], cells_at_once)
    after_loss, after_error = _judge(logit_NC, wanted_NC, parameter_P, cells_at_once)
    return Calibration(
        link="sigmoid",
        slope=slope,
        intercept=intercept,
        at_bound=slope in SLOPES,
        n_rows=len(wanted_NC),
        loss_before=before[0],
        loss_after=after_loss,
        error_before=before[1],
        error_after=after_error,
        shifts=tuple(shifts) if shift_spread else (),
    )


class _Loss(NamedTuple):
    """The loss at some parameters, its gradient, and the parts of its Hessian that are not 0."""

    value: float
    gradient_P: _Floats
    hessian_22: _Floats
    """Of slope and intercept."""
    hessian_2C: _Floats
    """Of each of these with each shift."""
    hessian_C: _Floats
    """Of each shift with itself; with others it has none."""

    def newton(self) -> _Floats:
        """The step to where the loss would be least if it were its parabola; the shifts are eliminated first."""
        share_2C = self.hessian_2C / self.hessian_C
        left_22 = self.hessian_22 - share_2C @ self.hessian_2C.T
        right_2 = share_2C @ self.gradient_P[2:] - self.gradient_P[:2]
        step_2 = np.linalg.lstsq(left_22, right_2, rcond=None)[0]
        return np.append(step_2, -(self.gradient_P[2:] + step_2 @ self.hessian_2C) / self.hessian_C)


def _start(logit_NC: _Logits, wanted_NC: _Bools) -> _Floats:
    """Parameters with which no score is near 0 or 1, and the mean score about right."""
    mean, width = float(logit_NC.mean(dtype=np.float64)), float(logit_NC.std(dtype=np.float64))
    share = np.clip(wanted_NC.mean(), 1e-6, 1 - 1e-6)
    slope = 1 / width if np.ptp(logit_NC) > 0 else 1.0
    return np.append([slope, np.log(share / (1 - share)) - slope * mean], np.zeros(logit_NC.shape[1]))


def _measure(
    logit_NC: _Logits, wanted_NC: _Bools, parameter_P: _Floats, shift_spread: float, cells_at_once: int
) -> _Loss:
    n_right, n_wrong = int(wanted_NC.sum()), int((~wanted_NC).sum())
    target_right = (n_right + _PRIOR_PAIRS) / (n_right + 2 * _PRIOR_PAIRS)
    target_wrong = _PRIOR_PAIRS / (n_wrong + 2 * _PRIOR_PAIRS)
    loss, by_slope, slope_twice = 0.0, 0.0, 0.0
    gap_C, hessian_2C = np.zeros(logit_NC.shape[1]), np.zeros((2, logit_NC.shape[1]))
    for logit_BC, wanted_BC in batches(logit_NC, wanted_NC, cells_at_once):
        line_BC = _line(logit_BC, parameter_P)
        score_BC, target_BC = _sigmoid(line_BC), np.where(wanted_BC, target_right, target_wrong)
        gap_BC, weight_BC = score_BC - target_BC, score_BC * (1 - score_BC)
        loss += float((np.logaddexp(0, line_BC) - target_BC * line_BC).sum())
        by_slope += float((gap_BC * logit_BC).sum())
        slope_twice += float((weight_BC * logit_BC * logit_BC).sum())
        gap_C += gap_BC.sum(axis=0)
        hessian_2C += (weight_BC * logit_BC).sum(axis=0), weight_BC.sum(axis=0)
    by_both, intercept_twice = hessian_2C.sum(axis=1)
    hessian_22 = np.array([[slope_twice, by_both], [by_both, intercept_twice]])
    by_line = [by_slope, gap_C.sum()]
    if not shift_spread:
        no_C = np.zeros_like(gap_C)
        return _Loss(loss, np.append(by_line, no_C), hessian_22, np.stack([no_C, no_C]), no_C + 1)
    shift_C, precision = parameter_P[2:], shift_spread**-2
    return _Loss(
        loss + 0.5 * precision * float(shift_C @ shift_C),
        np.append(by_line, gap_C + precision * shift_C),
        hessian_22,
        hessian_2C,
        hessian_2C[1] + precision,
    )


def _judge(logit_NC: _Logits, wanted_NC: _Bools, parameter_P: _Floats, cells_at_once: int) -> tuple[float, float]:
    """Mean loss of a pair, and the calibration error of each picture's best label."""
    loss, best, right = 0.0, [], []
    for logit_BC, wanted_BC in batches(logit_NC, wanted_NC, cells_at_once):
        line_BC = _line(logit_BC, parameter_P)
        loss += float((np.logaddexp(0, line_BC) - wanted_BC * line_BC).sum())
        best_B1 = line_BC.argmax(axis=1)[:, None]
        best.append(_sigmoid(np.take_along_axis(line_BC, best_B1, axis=1)[:, 0]))
        right.append(np.take_along_axis(wanted_BC, best_B1, axis=1)[:, 0])
    error = Reliability.count(np.concatenate(best), np.concatenate(right)).error
    return loss / wanted_NC.size, error or 0.0


def _line(logit_BC: _Floats, parameter_P: _Floats) -> _Floats:
    line_BC: _Floats = parameter_P[0] * logit_BC + (parameter_P[1] + parameter_P[2:])
    return line_BC


def _sigmoid(line_BC: _Floats) -> _Floats:
    """Scores, with no overflow."""
    score_BC: _Floats = 0.5 * (1 + np.tanh(0.5 * line_BC))
    return score_BC
