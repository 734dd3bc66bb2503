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
from zsic.models.leave_one_out import CELLS_AT_ONCE, LEAST_SPREAD, Floats, Integers, average, leave_one_out

WEIGHTS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Beyond the last, hardly anything of the text is left."""

_MOST_LABELS_HIDDEN = 64
_LEAST_GAIN = 2  # examples; one more that is right is chance, and with four examples it once cost 20 % of all pictures


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
    """The same of the new rows, each example by rows made without any of its label."""
    n_by_label_C: Integers
    """Examples of each label."""


def blend_examples(
    matrix_CD: npt.NDArray[np.floating],
    image_ND: npt.NDArray[np.floating],
    truth_N: npt.NDArray[np.integer],
    *,
    scale: float,
    weights: Sequence[float] = WEIGHTS,
    cells_at_once: int = CELLS_AT_ONCE,
) -> Blended:
    """Move the unit rows of labels towards the unit embeddings of their examples, whose labels are `truth_N`.

    The weight is that of `weights` which answers most examples rightly, each by rows made without it.  Of equally good
    ones it is the smallest, and it is 0 where no other gains two examples or more.  Where some labels have no
    examples, those of each label are also answered by rows made without any of them, and both shares count as labels
    with and without examples are many: examples pull pictures away from labels that have none.  A single weight is
    taken as it is.  Raises `SpecError` where there is no example, or none of the labels has its index.
    """
    n_labels = len(matrix_CD)
    if not np.isfinite(weights).all() or min(weights) < 0:
        raise SpecError(f"the weight of examples is {weights[0]}; use a number from 0 on")
    if len(truth_N) == 0:
        raise SpecError("there is no example with an embedding; name pictures that can be read")
    if truth_N.min() < 0 or truth_N.max() >= n_labels:
        raise SpecError(f"the examples have labels {truth_N.min()} to {truth_N.max()}, and there are {n_labels} labels")
    text_CD, example_ND = matrix_CD.astype(np.float64), image_ND.astype(np.float64)
    label_N: Integers = truth_N.astype(np.int64)
    n_C: Integers = np.bincount(label_N, minlength=n_labels)
    weight_W = np.unique(np.asarray([0.0, *weights], np.float64))  # the first stands for the text alone
    seen_W = _leave_one_out(text_CD, example_ND, label_N, weight_W, cells_at_once)
    hidden_W = _leave_label_out(text_CD, example_ND, label_N, weight_W) if (n_C == 0).any() else None
    share_hidden = float((n_C == 0).mean())
    value_W = seen_W if hidden_W is None else (1 - share_hidden) * seen_W + share_hidden * hidden_W
    allowed_W = np.isin(weight_W, np.asarray(weights, np.float64))
    # Shares differ by far more than rounding or not at all; argmax takes the first.
    best = int(np.where(allowed_W, value_W.round(9), -1.0).argmax())
    if allowed_W[0] and (value_W[best] - value_W[0]) * len(label_N) < _LEAST_GAIN - 1e-6:
        best = 0
    weight = float(weight_W[best])
    shift_CD, mean_D = _shift(example_ND, label_N, n_labels)
    row_CD = _unit(text_CD + weight * shift_CD)
    moved_C = (n_C > 0) & (weight > 0)
    return Blended(
        matrix_CD=np.where(moved_C[:, None], row_CD, matrix_CD).astype(np.float32),
        offset_C=(-scale * ((row_CD - text_CD) @ mean_D) * moved_C).astype(np.float32),
        weight=weight,
        accuracy_before=float(seen_W[0]),
        accuracy_after=float(seen_W[best]),
        hidden_before=None if hidden_W is None else float(hidden_W[0]),
        hidden_after=None if hidden_W is None else float(hidden_W[best]),
        n_by_label_C=n_C,
    )


def _shift(example_ND: Floats, truth_N: Integers, n_labels: int) -> tuple[Floats, Floats]:
    """What examples add to each row at a weight of 1, zero where there are none; and the mean of the prototypes."""
    prototype_CD, n_C = average(example_ND, truth_N, n_labels)
    n_seen, dim = int((n_C > 0).sum()), example_ND.shape[1]
    mean_D = prototype_CD.sum(axis=0) / n_seen
    residual_CD = np.where((n_C > 0)[:, None], prototype_CD - mean_D, 0.0)
    within_ND = example_ND - prototype_CD[truth_N]
    spread = float(np.square(within_ND).sum())
    n_free = len(truth_N) - n_seen
    if n_free == 0 or spread <= LEAST_SPREAD:
        return residual_CD, mean_D
    # The ridge of Kubokawa and Srivastava (2008), as Wang et al. use it; it fades as examples become many.  Scaled so
    # that Q is the identity where all directions are alike.
    ridge = spread / n_free
    scatter_DD = within_ND.T @ within_ND + ridge * np.eye(dim)
    return (spread / dim + ridge) * np.linalg.solve(scatter_DD, residual_CD.T).T, mean_D


def _leave_label_out(text_CD: Floats, example_ND: Floats, truth_N: Integers, weight_W: Floats) -> Floats:
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


def _leave_one_out(
    text_CD: Floats, example_ND: Floats, truth_N: Integers, weight_W: Floats, cells_at_once: int
) -> Floats:
    """Share right [W] of examples, each by rows made without it."""
    n_right_W = np.zeros(len(weight_W))
    for chunk, parts in leave_one_out(text_CD, example_ND, truth_N, cells_at_once=cells_at_once):
        for at, weight in enumerate(weight_W):
            n_right_W[at] += int((parts.logits(weight).argmax(axis=1) == truth_N[chunk]).sum())
    return n_right_W / len(truth_N)


def _unit(row_CD: Floats) -> Floats:
    unit_CD: Floats = row_CD / np.linalg.norm(row_CD, axis=1, keepdims=True).clip(1e-12)
    return unit_CD
