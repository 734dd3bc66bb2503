"""What rows made of examples would say to each of these examples, had they been made without it.

Shape legend: N examples, B of them at a time, C labels, D embedding width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_SPREAD = 1e-9
"""Sum of squares of unit vectors below which there is only rounding."""

CELLS_AT_ONCE = 2**21
"""Numbers in an array of a part of the examples: bounds the memory."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def average(example_ND: Floats, truth_N: Integers, n_labels: int) -> tuple[Floats, Integers]:
    """The mean of each label's examples, zero where there are none, and their number."""
    n_C: Integers = np.bincount(truth_N, minlength=n_labels)
    sum_CD = np.zeros((n_labels, example_ND.shape[1]))
    np.add.at(sum_CD, truth_N, example_ND)
    return sum_CD / np.maximum(n_C, 1)[:, None], n_C


def leave_one_out(
    text_CD: Floats, example_ND: Floats, truth_N: Integers, *, cells_at_once: int = CELLS_AT_ONCE
) -> Iterator[tuple[slice, "Parts"]]:
    """Logits of the examples by the rows of `zsic.models.examples`, each by rows made without it; some at a time.

    Exactly, and without making those rows.  Leaving an example out moves one prototype, the mean and the ridge, and
    takes one direction out of the scatter: in the basis of its eigenvectors all of that is elementwise (Sherman and
    Morrison 1950 for the direction).
    """
    prototype_CD, n_C = average(example_ND, truth_N, len(text_CD))
    seen_C = n_C > 0
    n_seen = int(seen_C.sum())
    mean_D = prototype_CD.sum(axis=0) / n_seen
    within_ND = example_ND - prototype_CD[truth_N]
    value_D, basis_DD = np.linalg.eigh(within_ND.T @ within_ND)
    # All that follows is relative to the mean, and in that basis.
    centre_C, text_CD = text_CD @ mean_D, text_CD @ basis_DD
    prototype_CD = np.where(seen_C[:, None], prototype_CD - mean_D, 0.0) @ basis_DD
    left = _LeftOut(text_CD, prototype_CD, seen_C, centre_C, value_D.clip(0), len(truth_N) - n_seen)
    n_at_once = max(1, cells_at_once // max(text_CD.shape))
    for begin in range(0, len(truth_N), n_at_once):
        chunk = slice(begin, begin + n_at_once)
        truth_B = truth_N[chunk]
        yield chunk, left.parts((example_ND[chunk] - mean_D) @ basis_DD, truth_B, n_C[truth_B])


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What the logits of examples by rows ``unit(text + weight * shift)`` are made of, for any weight."""

    text_BC: Floats
    """Of the centred example with the text."""
    shift_BC: Floats
    """Of the centred example with the shift."""
    cross_BC: Floats
    """Of text and shift."""
    square_BC: Floats
    """Of the shift with itself."""
    centre_BC: Floats
    """Of the mean with the text."""

    def logits(self, weight: float) -> Floats:
        """Over scale, with offsets."""
        norm2_BC = 1 + 2 * weight * self.cross_BC + weight**2 * self.square_BC
        logit_BC: Floats = (self.text_BC + weight * self.shift_BC) / np.sqrt(norm2_BC.clip(1e-24)) + self.centre_BC
        return logit_BC


@dataclass(frozen=True, slots=True, eq=False)
class _LeftOut:
    """All examples, in the basis of their scatter's eigenvectors and relative to the mean of the prototypes."""

    text_CD: Floats
    prototype_CD: Floats
    seen_C: npt.NDArray[np.bool_]
    centre_C: Floats
    value_D: Floats
    n_free: int

    def parts(self, example_BD: Floats, truth_B: Integers, n_B: Integers) -> Parts:
        """For examples of which each is left out of the rows it meets; `n_B` is how many its label has with it."""
        # Without the example, a label's shift is Q (prototype - mean), where Q = diag(shrink) + gain * along along^T.
        # What is wanted of the shift of each label are its products with the centred example, with the text, and with
        # itself.  Prototypes of other labels are as they were; the example's own has moved, and comes last.
        text_CD, prototype_CD = self.text_CD, self.prototype_CD
        n_seen, dim = int(self.seen_C.sum()), len(self.value_D)
        alone_B = n_B == 1  # its label keeps its text row
        prototype_BD = prototype_CD[truth_B]
        within_BD = example_BD - prototype_BD
        own_BD = prototype_BD - within_BD / np.maximum(n_B - 1, 1)[:, None]
        mean_BD = np.where(alone_B[:, None], -prototype_BD / max(n_seen - 1, 1), (own_BD - prototype_BD) / n_seen)

        factor_B = np.where(alone_B, 0.0, n_B / np.maximum(n_B - 1, 1))
        spread_B = self.value_D.sum() - factor_B * np.square(within_BD).sum(axis=1)
        n_free_B = self.n_free - ~alone_B
        flat_B = (n_free_B == 0) | (spread_B <= LEAST_SPREAD)
        ridge_B = np.where(flat_B, 1.0, spread_B / np.maximum(n_free_B, 1))
        size_B = spread_B / dim + ridge_B
        shrink_BD = np.where(flat_B[:, None], 1.0, size_B[:, None] / (self.value_D + ridge_B[:, None]))
        along_BD = shrink_BD * within_BD
        gain_B1 = np.where(flat_B, 0.0, factor_B / (size_B - factor_B * _dot(along_BD, within_BD)))[:, None]

        def q(x_BD: Floats) -> Floats:
            return shrink_BD * x_BD + gain_B1 * along_BD * _dot(along_BD, x_BD)[:, None]

        def with_residuals(x_BD: Floats) -> Floats:
            return x_BD @ prototype_CD.T - _dot(x_BD, mean_BD)[:, None]

        centred_BD = example_BD - mean_BD
        mean_text_BC = mean_BD @ text_CD.T
        along_BC, squared_BD = with_residuals(along_BD), shrink_BD**2
        shift_BC = with_residuals(q(centred_BD))
        cross_BC = shrink_BD @ (text_CD * prototype_CD).T - (shrink_BD * mean_BD) @ text_CD.T
        cross_BC += gain_B1 * (along_BD @ text_CD.T) * along_BC
        square_BC = squared_BD @ np.square(prototype_CD).T - 2 * (squared_BD * mean_BD) @ prototype_CD.T
        square_BC += _dot(squared_BD * mean_BD, mean_BD)[:, None]
        square_BC += 2 * gain_B1 * along_BC * with_residuals(shrink_BD * along_BD)
        square_BC += np.square(gain_B1 * along_BC) * _dot(along_BD, along_BD)[:, None]
        for part_BC in (shift_BC, cross_BC, square_BC):
            part_BC[:, ~self.seen_C] = 0.0

        # The example's own label, whose prototype has moved.
        rows_B = np.arange(len(truth_B))
        shift_BD = np.where(alone_B[:, None], 0.0, q(own_BD - mean_BD))
        shift_BC[rows_B, truth_B] = _dot(shift_BD, centred_BD)
        cross_BC[rows_B, truth_B] = _dot(shift_BD, text_CD[truth_B])
        square_BC[rows_B, truth_B] = _dot(shift_BD, shift_BD)
        text_BC = example_BD @ text_CD.T - mean_text_BC
        return Parts(text_BC, shift_BC, cross_BC, square_BC, self.centre_C + mean_text_BC)


def _dot(x_BD: Floats, y_BD: Floats) -> Floats:
    dot_B: Floats = np.einsum("bd,bd->b", x_BD, y_BD)
    return dot_B
