"""Which label was taken for which.

Only pairs that occur are kept: 21,000 labels have 441 million.

Shape legend: N rows, U pairs that occur, C labels.
"""

from dataclasses import dataclass

import numpy as np

from zsic.evaluate.bootstrap import Counts
from zsic.evaluate.counts import Keys, SparseCounts
from zsic.evaluate.parts import FAILED
from zsic.evaluate.vocabulary import Ids

MOST_PAIRS = 1 << 22
"""Of true and answered label; 64 MB, and 256 MB while they are merged."""
_OTHER = FAILED - 1
"""Stands for labels of pairs that are too rare to be kept."""
_OFFSET = 1 - _OTHER
"""Added to a label's number, so that what stands for others is positive."""
_LOW = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Images of one label that got another."""

    true: str
    answered: str
    n: int
    n_true: int
    """Images of the true label in all."""

    def to_dict(self) -> dict[str, str | int]:
        """Give everything in types that JSON has."""
        return {"true": self.true, "answered": self.answered, "n": self.n, "n_true": self.n_true}


class ConfusionCounts:
    """Pairs of true and answered label so far.

    Where there are more than `most`, the rarest lose one another: each side is still counted, with an unnamed
    other in place of the partner, so what is said of one label stays exact.
    """

    def __init__(self, most: int = MOST_PAIRS) -> None:
        self._most = most
        self._counts = SparseCounts(most, self._fold_rarest)

    def add(self, true_N: Ids, answer_N: Ids) -> None:
        """Count rows by true label and answer; answers may be `REJECTED` or `FAILED`."""
        self._counts.add(_key(true_N, answer_N))

    def pairs(self) -> tuple[Ids, Ids, Counts]:
        """Give true labels [U], answers [U] and counts [U]; either label may stand for others (below `FAILED`)."""
        key_U, n_U = self._counts.items()
        return (key_U >> 32) - _OFFSET, (key_U & _LOW) - _OFFSET, n_U

    def _fold_rarest(self, key_U: Keys, n_U: Counts) -> tuple[Keys, Counts]:
        true_U, answer_U = (key_U >> 32) - _OFFSET, (key_U & _LOW) - _OFFSET
        # What is right, or has lost its partner, needs no other; of the rest half may stay.
        foldable_U = np.flatnonzero((true_U != answer_U) & (true_U > _OTHER) & (answer_U > _OTHER))
        rarest_U = foldable_U[np.argsort(n_U[foldable_U], kind="stable")][: max(1, len(foldable_U) // 2)]
        kept_U = np.ones(len(key_U), bool)
        kept_U[rarest_U] = False
        other_U = np.full(len(rarest_U), _OTHER)
        return (
            np.concatenate([key_U[kept_U], _key(true_U[rarest_U], other_U), _key(other_U, answer_U[rarest_U])]),
            np.concatenate([n_U[kept_U], n_U[rarest_U], n_U[rarest_U]]),
        )


def _key(true_N: Ids, answer_N: Ids) -> Keys:
    key_N: Keys = (true_N + _OFFSET) << 32 | (answer_N + _OFFSET)
    return key_N


def most_confused(names: list[str], pairs: tuple[Ids, Ids, Counts], most: int) -> tuple[tuple[ConfusedPair, ...], int]:
    """Give the most frequent pairs of different labels, and how many pairs there are."""
    true_U, answer_U, n_U = pairs
    n_true_C = np.bincount(true_U[true_U >= 0], n_U[true_U >= 0], minlength=len(names)).astype(np.int64)
    wrong_U = np.flatnonzero((true_U != answer_U) & (true_U >= 0) & (answer_U >= 0))
    # Equally frequent ones in the order of the labels.
    best_U = wrong_U[np.argsort(-n_U[wrong_U], kind="stable")][:most]
    return (
        tuple(
            ConfusedPair(names[true], names[answer], n, int(n_true_C[true]))
            for true, answer, n in zip(
                true_U[best_U].tolist(), answer_U[best_U].tolist(), n_U[best_U].tolist(), strict=True
            )
        ),
        len(wrong_U),
    )
