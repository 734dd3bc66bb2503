"""How well each label is found, and means over the labels that images have.

Shape legend: C labels, U pairs of true and answered label, G groups of rows, r replicates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic.evaluate import jackknife
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.bootstrap import Bootstrap, Counts
from zsic.evaluate.counts import SparseCounts
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.jackknife import N_GROUPS
from zsic.evaluate.vocabulary import Ids

Figures = npt.NDArray[np.float64]
_TRUE, _ANSWERED, _RIGHT = range(3)


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """How often one label is given where it is true, and true where it is given."""

    label: str
    recall: Accuracy
    """Of its images, those that got it; failed ones count as wrong."""
    precision: Accuracy
    """Of the images that got it, those that are its own."""
    average_precision: float | None = None
    """Area under precision against recall, where images have several labels."""

    @property
    def top1(self) -> Accuracy:
        """The recall; where images have one label and get one answer, it is the top-1 accuracy of its images."""
        return self.recall

    @property
    def f1(self) -> Estimate:
        """The harmonic mean of recall and precision.

        It is 2 J / (1 + J) of the share J of right images among those that are of the label or got it, so its
        interval is that of J (Wilson), carried over.
        """
        share = Accuracy(self.recall.n_right, self.recall.n + self.precision.n - self.recall.n_right)
        if share.value is None:
            return Estimate(None, None, None, 0)
        value, low, high = (2 * each / (1 + each) for each in (share.value, *share.interval))
        return Estimate(value, low, high, share.n)

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "label": self.label,
            "recall": self.recall.to_dict(),
            "precision": self.precision.to_dict(),
            "f1": self.f1.to_dict(),
            "average_precision": self.average_precision,
        }


@dataclass(frozen=True, slots=True)
class LabelMeans:
    """Means over the labels that at least one image has; a label that was never given has precision 0."""

    recall: Estimate
    """Mean per-class recall, also called balanced accuracy: every label counts alike, however rare."""
    precision: Estimate
    f1: Estimate
    """Macro F1."""
    weighted_f1: Estimate
    """F1, each label weighted by its images."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "recall": self.recall.to_dict(),
            "precision": self.precision.to_dict(),
            "f1": self.f1.to_dict(),
            "weighted_f1": self.weighted_f1.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Images by label: of it, given it, and both; [C] each, or several sets of counts [r, C]."""

    true_C: Counts
    answered_C: Counts
    right_C: Counts

    def means(self) -> Figures:
        """Give mean recall, mean precision, macro F1 and weighted F1 [..., 4]; NaN where no label has an image."""
        has_images = self.true_C > 0
        recall = self.right_C / np.maximum(self.true_C, 1)
        precision = self.right_C / np.maximum(self.answered_C, 1)
        f1 = 2 * self.right_C / np.maximum(self.true_C + self.answered_C, 1)
        n_labels = has_images.sum(-1)
        sums = [(figure * has_images).sum(-1) / np.maximum(n_labels, 1) for figure in (recall, precision, f1)]
        sums.append((f1 * self.true_C).sum(-1) / np.maximum(self.true_C.sum(-1), 1))
        return np.where(n_labels[..., None] > 0, np.stack(sums, -1), np.nan)


def count_classes(pairs: tuple[Ids, Ids, Counts], n_labels: int) -> ClassCounts:
    """Add up the confusion matrix, of images with one label each."""
    true_U, answer_U, n_U = pairs
    return ClassCounts(*(_bincount(at_U, n_U, n_labels) for at_U in _places(true_U, answer_U)))


def bootstrap_means(pairs: tuple[Ids, Ids, Counts], n_labels: int, bootstrap: Bootstrap) -> LabelMeans:
    """Give the means with intervals: each pair of labels is drawn for itself, so what links labels is kept."""
    true_U, answer_U, n_U = pairs
    counts = count_classes(pairs, n_labels)
    places = _places(true_U, answer_U)

    def means(n_rU: Counts) -> Figures:
        return np.stack([ClassCounts(*(_bincount(at_U, n, n_labels) for at_U in places)).means() for n in n_rU])

    mean_4, n = counts.means().tolist(), int((counts.true_C > 0).sum())
    mean_R4 = bootstrap.replicate(n_U, means)
    return LabelMeans(*(Estimate.from_replicates(mean_4[i], mean_R4[:, i], n) for i in range(4)))


class GroupedClassCounts:
    """Images by label and group of rows, where an image may have several labels."""

    def __init__(self) -> None:
        self._counts = SparseCounts()

    def add(
        self, true: tuple[Ids, Ids], answered: tuple[Ids, Ids], is_right_N: npt.NDArray[np.bool_], group_B: Ids
    ) -> None:
        """Count the rows of a batch, given as (row, label) pairs, and which of the answered ones are true."""
        right = answered[0][is_right_N], answered[1][is_right_N]
        for kind, (row_N, label_N) in ((_TRUE, true), (_ANSWERED, answered), (_RIGHT, right)):
            self._counts.add((label_N * 3 + kind) * N_GROUPS + group_B[row_N])

    def by_group(self, n_labels: int) -> ClassCounts:
        """Give the counts [G, C] of each group."""
        key_U, n_U = self._counts.items()
        counts_C3G = np.zeros((n_labels, 3, N_GROUPS), np.int64)
        counts_C3G.ravel()[key_U] = n_U
        return ClassCounts(*(counts_C3G[:, kind].T for kind in (_TRUE, _ANSWERED, _RIGHT)))


def jackknife_means(by_group: ClassCounts) -> tuple[LabelMeans, ClassCounts]:
    """Give the means with intervals, and the counts of all groups together."""
    sides = (by_group.true_C, by_group.answered_C, by_group.right_C)
    counts = ClassCounts(*(side_GC.sum(0) for side_GC in sides))
    without = ClassCounts(*(side_GC.sum(0) - side_GC for side_GC in sides))
    mean_4, mean_G4 = counts.means().tolist(), without.means()
    n = int((counts.true_C > 0).sum())
    return LabelMeans(*(jackknife.estimate(mean_4[i], mean_G4[:, i], n) for i in range(4))), counts


def _places(true_U: Ids, answer_U: Ids) -> tuple[Ids, Ids, Ids]:
    """Where each pair counts, -1 for nowhere: as true, as answered, as right."""
    return np.maximum(true_U, -1), np.maximum(answer_U, -1), np.where(true_U == answer_U, np.maximum(true_U, -1), -1)


def _bincount(at_U: Ids, n_U: Counts, n_labels: int) -> Counts:
    counts: Counts = np.bincount(at_U + 1, n_U, minlength=n_labels + 1)[1:].astype(np.int64)
    return counts
