"""How sure a model should sound: learnt from pictures whose labels are known.

A calibration is a line through the logits, ``slope * logit + intercept``, with a positive slope, and perhaps a shift
for each label.  Without shifts answers, their order and their similarities stay, and scores move.  So a head with
scale, bias and offsets becomes one with slope * scale, slope * bias + intercept and slope * offsets + shifts.

Shape legend: N pictures, B of them at a time, C labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zsic.core.errors import SpecError
from zsic.core.scoring import Link

SLOPES = (0.01, 100.0)
"""Temperatures of 100 to 0.01; beyond, all scores are alike, or 0 and 1."""

CELLS_AT_ONCE = 2**20
"""Logits of a part of the pictures: bounds the memory."""
_Truth = TypeVar("_Truth", bound=np.generic)


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
    shifts: tuple[float, ...] = ()
    """What is added for each label beside the intercept, in label order; none where labels are not told apart."""

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        return 1 / self.slope


def batches(
    logit_NC: npt.NDArray[np.floating], truth_N: npt.NDArray[_Truth], cells_at_once: int
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[_Truth]]]:
    """Logits in float64, with their truth, some pictures at a time."""
    n_at_once = ceil(cells_at_once / logit_NC.shape[1])
    for begin in range(0, len(logit_NC), n_at_once):
        chunk = slice(begin, begin + n_at_once)
        yield logit_NC[chunk].astype(np.float64), truth_N[chunk]


def require_pictures(n: int) -> None:
    """Raise `SpecError` if there is no picture to learn from."""
    if n == 0:
        raise SpecError("there is no picture with a known label to calibrate with; check that the truth's keys match")
