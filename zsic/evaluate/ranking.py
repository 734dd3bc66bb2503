"""How well the scores of each label rank the images that have it: average precision.

Shape legend: N predictions, U cells (label, bin of score, right or wrong, group of rows), L cells (label, bin),
C labels, G groups.
"""

import numpy as np
import numpy.typing as npt

from zsic.evaluate import jackknife
from zsic.evaluate.bootstrap import Counts
from zsic.evaluate.counts import Keys, SparseCounts
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.grid import N_BINS, to_bins
from zsic.evaluate.jackknife import N_GROUPS
from zsic.evaluate.vocabulary import Ids

Sums = npt.NDArray[np.float64]

_MOST_CELLS = 1 << 22
"""64 MB, and 256 MB while they are merged."""


class RankingCounts:
    """Predictions so far, by label and bin of score; where that is too much to keep, bins are joined by pairs."""

    def __init__(self, most: int = _MOST_CELLS) -> None:
        self._shift = 0
        self._counts = SparseCounts(most, self._coarsen)

    def add(
        self, label_N: Ids, score_N: npt.NDArray[np.float32], is_right_N: npt.NDArray[np.bool_], group_N: Ids
    ) -> None:
        """Count predictions."""
        bin_N = to_bins(score_N) >> self._shift
        self._counts.add(((label_N * N_BINS + bin_N) * 2 + is_right_N) * N_GROUPS + group_N)

    def close(self, true_GC: Counts, n_rows_G: Counts) -> tuple[Estimate, list[float | None]]:
        """Give the mean average precision over the labels that images have, and each label's average precision.

        Images for which a label is not among the predictions come after all others, in no order.
        """
        key_U, n_U = self._counts.items()
        group_U, key_U = key_U % N_GROUPS, key_U // N_GROUPS
        is_right_U, key_U = (key_U % 2).astype(bool), key_U // 2
        # Within a label from the best score down.
        label_U, bin_U = key_U // N_BINS, key_U % N_BINS
        key_L, at_U = np.unique(label_U * N_BINS + (N_BINS - 1 - bin_U), return_inverse=True)
        label_L = key_L // N_BINS

        def precision(kept_U: npt.NDArray[np.bool_], true_C: Counts, n_rows: int) -> Sums:
            weight_U = np.where(kept_U, n_U, 0).astype(np.float64)
            n_L = _sums(at_U, weight_U, len(label_L))
            right_L = _sums(at_U, weight_U * is_right_U, len(label_L))
            return average_precision(label_L, right_L, n_L, true_C, n_rows)

        true_C, n_rows = true_GC.sum(0), int(n_rows_G.sum())
        precision_C = precision(np.ones(len(n_U), bool), true_C, n_rows)
        without_G = np.array(
            [_mean(precision(group_U != g, true_C - true_GC[g], n_rows - int(n_rows_G[g]))) for g in range(N_GROUPS)]
        )
        value = _mean(precision_C)
        n_labels = int((true_C > 0).sum())
        mean = jackknife.estimate(None if np.isnan(value) else value, without_G, n_labels)
        return mean, [None if np.isnan(each) else each for each in precision_C.tolist()]

    def _coarsen(self, key_U: Keys, n_U: Counts) -> tuple[Keys, Counts]:
        rest_U, place_U = key_U % (2 * N_GROUPS), key_U // (2 * N_GROUPS)
        label_U, bin_U = place_U // N_BINS, place_U % N_BINS
        self._shift += 1
        return (label_U * N_BINS + (bin_U >> 1)) * (2 * N_GROUPS) + rest_U, n_U


def average_precision(label_L: Ids, right_L: Sums, n_L: Sums, true_C: Counts, n_rows: int) -> Sums:
    """Give, by label, the sum of precision times the gain in recall, over thresholds; NaN where no image has it.

    Cells are sorted by label, and within it from the best score down; images in no cell of a label come last.
    """
    first_L = np.searchsorted(label_L, label_L)
    right_down_L, n_down_L = (np.cumsum(each_L) - _before(each_L)[first_L] for each_L in (right_L, n_L))
    gain_L = right_L * right_down_L / np.maximum(n_down_L, 1)
    n_labels = len(true_C)
    gain_C = _sums(label_L, gain_L, n_labels)
    unranked_C = true_C - _sums(label_L, right_L, n_labels)
    gain_C += unranked_C * true_C / max(n_rows, 1)
    return np.where(true_C > 0, gain_C / np.maximum(true_C, 1), np.nan)


def _sums(at_U: Ids, weight_U: Sums, n: int) -> Sums:
    return np.asarray(np.bincount(at_U, weight_U, minlength=n), np.float64)


def _before(n_L: Sums) -> Sums:
    """The sum of all cells before each."""
    return np.cumsum(n_L) - n_L


def _mean(precision_C: Sums) -> float:
    known_C = precision_C[np.isfinite(precision_C)]
    return float(known_C.mean()) if len(known_C) else float("nan")
