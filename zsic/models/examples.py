"""A few pictures of a label, besides its prompts: how they move its row, and how far they may.

What the pictures of one label have in common beyond what those of all labels have is added to its row,

    row_c = unit(text_c + weight * Q (prototype_c - mean))        offset_c = -scale * (row_c - text_c) . mean

where prototypes are means of the examples, `mean` is the mean of the prototypes, and Q shrinks directions in which
examples of one label differ among themselves: the shared covariance of the Gaussian classifier of Wang et al. (2024,
"A hard-to-beat baseline for training-free CLIP-based adaptation").  Differences, because pictures are far nearer to
pictures than to texts: a label with a whole prototype in its row would win over all that have none.  The offset keeps
the mean picture's logits as they were, so that scores grow sharper and do not wander, under either link.  Rows stay
unit vectors, and similarities cosines.

Shape legend: N examples, B of them at a time, C labels, D embedding width, W weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic.core.errors import SpecError

WEIGHTS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Beyond the last, hardly anything of the text is left."""

_CELLS_AT_ONCE = 2**21
_MOST_LABELS_HIDDEN = 64
_LEAST_SPREAD = 1e-9  # of unit vectors; what is less is rounding

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Blended:
    """Rows that examples have moved, and what that is worth."""

    matrix_CD: npt.NDArray[np.float32]
    """Unit rows; labels without examples keep theirs."""
    offset_C: npt.NDArray[np.float32]
    """To be added to the logits."""
    weight: float
    """0 where no weight was better than the text alone."""
    accuracy_before: float
    """Share of the examples that the text rows answer rightly."""
    accuracy_after: float
    """The same of the new rows, each example by rows that were made without it."""
    hidden_before: float | None
    """None where all labels have examples; else the share that the text rows answer rightly, for comparison with:"""
    hidden_after: float | None
    """The same of the new rows, each example by rows made without any of its label: how labels without examples fare."""
    n_by_label_C: _Integers
    """Examples of each label."""


def blend_examples(
    matrix_CD: npt.NDArray[np.floating],
    image_ND: npt.NDArray[np.floating],
    truth_N: npt.NDArray[np.integer],
    *,
    scale: float,
    weights: Sequence[float] = WEIGHTS,
) -> Blended:
    """Move the unit rows of labels towards the unit embeddings of their examples, whose labels are `truth_N`.

    The weight is that of `weights` which answers most examples rightly, each by rows made without it; of equally good
    ones it is the smallest.  Where labels have no examples, what happens to labels without any counts as well, by
    their share of all labels: examples pull pictures to labels that have some.  One weight forces it.  Raises
    `SpecError` where there is no example or no label of that index.
    """
    n_labels = len(matrix_CD)
    if len(truth_N) == 0:
        raise SpecError("there is no example with an embedding; name pictures that can be read")
    if truth_N.min() < 0 or truth_N.max() >= n_labels:
        raise SpecError(f"the examples have labels {truth_N.min()} to {truth_N.max()}, and there are {n_labels} labels")
    text_CD, example_ND = matrix_CD.astype(np.float64), image_ND.astype(np.float64)
    truth_N = truth_N.astype(np.int64)
    n_C = np.bincount(truth_N, minlength=n_labels)
    weight_W = np.unique(np.asarray([0.0, *weights], np.float64))  # the first stands for the text alone
    seen_W = _leave_one_out(text_CD, example_ND, truth_N, weight_W)
    hidden_W = _leave_label_out(text_CD, example_ND, truth_N, weight_W) if (n_C == 0).any() else None
    share_hidden = float((n_C == 0).mean())
    value_W = seen_W if hidden_W is None else (1 - share_hidden) * seen_W + share_hidden * hidden_W
    allowed_W = np.isin(weight_W, np.asarray(weights, np.float64))
    # Shares differ by far more than rounding or not at all; argmax takes the first.
    best = int(np.where(allowed_W, value_W.round(9), -1.0).argmax())
    weight = float(weight_W[best])
    shift_CD, mean_D = _shift(example_ND, truth_N, n_labels)
    row_CD = _unit(text_CD + weight * shift_CD)
    return Blended(
        matrix_CD=np.where((n_C > 0)[:, None] & (weight > 0), row_CD, matrix_CD).astype(np.float32),
        offset_C=(-scale * ((row_CD - text_CD) @ mean_D) * (n_C > 0)).astype(np.float32),
        weight=weight,
        accuracy_before=float(seen_W[0]),
        accuracy_after=float(seen_W[best]),
        hidden_before=None if hidden_W is None else float(hidden_W[0]),
        hidden_after=None if hidden_W is None else float(hidden_W[best]),
        n_by_label_C=n_C,
    )


def _shift(example_ND: _Floats, truth_N: _Integers, n_labels: int) -> tuple[_Floats, _Floats]:
    """What examples add to each row at a weight of 1, zero where there are none; and the mean of the prototypes."""
    prototype_CD, n_C = _prototypes(example_ND, truth_N, n_labels)
    n_seen, dim = int((n_C > 0).sum()), example_ND.shape[1]
    mean_D = prototype_CD.sum(axis=0) / n_seen
    residual_CD = np.where((n_C > 0)[:, None], prototype_CD - mean_D, 0.0)
    within_ND = example_ND - prototype_CD[truth_N]
    spread = float(np.square(within_ND).sum())
    n_free = len(truth_N) - n_seen
    if n_free == 0 or spread <= _LEAST_SPREAD:
        return residual_CD, mean_D
    # The ridge of Kubokawa and Srivastava (2008), as Wang et al. use it; it fades as examples become many.  Scaled so
    # that Q is the identity where all directions are alike.
    ridge = spread / n_free
    scatter_DD = within_ND.T @ within_ND + ridge * np.eye(dim)
    return (spread / dim + ridge) * np.linalg.solve(scatter_DD, residual_CD.T).T, mean_D


def _prototypes(example_ND: _Floats, truth_N: _Integers, n_labels: int) -> tuple[_Floats, _Integers]:
    """The mean of each label's examples, zero where there are none, and their number."""
    n_C: _Integers = np.bincount(truth_N, minlength=n_labels)
    sum_CD = np.zeros((n_labels, example_ND.shape[1]))
    np.add.at(sum_CD, truth_N, example_ND)
    return sum_CD / np.maximum(n_C, 1)[:, None], n_C


def _leave_label_out(text_CD: _Floats, example_ND: _Floats, truth_N: _Integers, weight_W: _Floats) -> _Floats:
    """Share right [W] of examples whose whole label is left out, for labels spread evenly over those that have any."""
    seen = np.unique(truth_N)
    n_right_W, n = np.zeros(len(weight_W)), 0
    for label in seen[np.linspace(0, len(seen) - 1, min(len(seen), _MOST_LABELS_HIDDEN)).astype(np.int64)]:
        inside_N = truth_N == label
        n += int(inside_N.sum())
        if inside_N.all():
            shift_CD, mean_D = np.zeros_like(text_CD), np.zeros(text_CD.shape[1])
        else:
            shift_CD, mean_D = _shift(example_ND[~inside_N], truth_N[~inside_N], len(text_CD))
        hidden_BD, centre_C = example_ND[inside_N] - mean_D, text_CD @ mean_D
        for at, weight in enumerate(weight_W):
            logit_BC = hidden_BD @ _unit(text_CD + weight * shift_CD).T + centre_C
            n_right_W[at] += int((logit_BC.argmax(axis=1) == label).sum())
    return n_right_W / n


def _leave_one_out(text_CD: _Floats, example_ND: _Floats, truth_N: _Integers, weight_W: _Floats) -> _Floats:
    """Share right [W] of examples, each by rows made without it: exactly, and without making those rows.

    Leaving an example out moves one prototype, the mean, and the ridge, and takes one direction out of the scatter:
    in the basis of its eigenvectors all of that is elementwise (Sherman and Morrison 1950 for the direction).
    """
    prototype_CD, n_C = _prototypes(example_ND, truth_N, len(text_CD))
    seen_C = n_C > 0
    n_seen = int(seen_C.sum())
    mean_D = prototype_CD.sum(axis=0) / n_seen
    within_ND = example_ND - prototype_CD[truth_N]
    value_D, basis_DD = np.linalg.eigh(within_ND.T @ within_ND)
    # All that follows is relative to the mean, and in that basis.
    centre_C, text_CD = text_CD @ mean_D, text_CD @ basis_DD
    prototype_CD = np.where(seen_C[:, None], prototype_CD - mean_D, 0.0) @ basis_DD
    left = _LeftOut(text_CD, prototype_CD, seen_C, centre_C, value_D.clip(0), len(truth_N) - n_seen)
    n_right_W = np.zeros(len(weight_W))
    n_at_once = max(1, _CELLS_AT_ONCE // max(text_CD.shape))
    for begin in range(0, len(truth_N), n_at_once):
        chunk = slice(begin, begin + n_at_once)
        truth_B = truth_N[chunk]
        parts = left.parts((example_ND[chunk] - mean_D) @ basis_DD, truth_B, n_C[truth_B])
        for at, weight in enumerate(weight_W):
            n_right_W[at] += int((parts.logits(weight).argmax(axis=1) == truth_B).sum())
    return n_right_W / len(truth_N)


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What the logits of examples by rows ``unit(text + weight * shift)`` are made of, for any weight."""

    text_BC: _Floats
    """Of the centred example with the text."""
    shift_BC: _Floats
    """Of the centred example with the shift."""
    cross_BC: _Floats
    """Of text and shift."""
    square_BC: _Floats
    """Of the shift with itself."""
    centre_BC: _Floats
    """Of the mean with the text."""

    def logits(self, weight: float) -> _Floats:
        """Over scale, with offsets."""
        norm2_BC = 1 + 2 * weight * self.cross_BC + weight**2 * self.square_BC
        return (self.text_BC + weight * self.shift_BC) / np.sqrt(norm2_BC.clip(1e-24)) + self.centre_BC


@dataclass(frozen=True, slots=True, eq=False)
class _LeftOut:
    """All examples, in the basis of their scatter's eigenvectors and relative to the mean of the prototypes."""

    text_CD: _Floats
    prototype_CD: _Floats
    seen_C: npt.NDArray[np.bool_]
    centre_C: _Floats
    value_D: _Floats
    n_free: int

    def parts(self, example_BD: _Floats, truth_B: _Integers, n_B: _Integers) -> _Parts:
        """For examples of which each is left out of the rows it meets; `n_B` is how many its label has with it."""
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
        flat_B = (n_free_B == 0) | (spread_B <= _LEAST_SPREAD)
        ridge_B = np.where(flat_B, 1.0, spread_B / np.maximum(n_free_B, 1))
        size_B = spread_B / dim + ridge_B
        # Q = diag(shrink) + gain * along along^T
        shrink_BD = np.where(flat_B[:, None], 1.0, size_B[:, None] / (self.value_D + ridge_B[:, None]))
        along_BD = shrink_BD * within_BD
        gain_B1 = np.where(flat_B, 0.0, factor_B / (size_B - factor_B * _dot(along_BD, within_BD)))[:, None]

        def q(x_BD: _Floats) -> _Floats:
            return shrink_BD * x_BD + gain_B1 * along_BD * _dot(along_BD, x_BD)[:, None]

        def with_residuals(x_BD: _Floats) -> _Floats:
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
        own_BD = np.where(alone_B[:, None], 0.0, q(own_BD - mean_BD))
        shift_BC[rows_B, truth_B] = _dot(own_BD, centred_BD)
        cross_BC[rows_B, truth_B] = _dot(own_BD, text_CD[truth_B])
        square_BC[rows_B, truth_B] = _dot(own_BD, own_BD)
        text_BC = example_BD @ text_CD.T - mean_text_BC
        return _Parts(text_BC, shift_BC, cross_BC, square_BC, self.centre_C + mean_text_BC)


def _dot(x_BD: _Floats, y_BD: _Floats) -> _Floats:
    return np.einsum("bd,bd->b", x_BD, y_BD)


def _unit(row_CD: _Floats) -> _Floats:
    return row_CD / np.linalg.norm(row_CD, axis=1, keepdims=True).clip(1e-12)
