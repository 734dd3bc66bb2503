"""How far two outputs are apart as wholes: in what they answer, and in how sure they are.

The images may be others, such as those of two nights.

Shape legend: N answers, C labels, Z bins of score.
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic.evaluate.bootstrap import Counts
from zsic.evaluate.grid import N_BINS, to_bins

N_SHOWN = 20
"""Bins of the histograms that are handed on, of equal width."""


@dataclass(frozen=True, slots=True)
class LabelShare:
    """How many answers are of one label, in either output."""

    label: str
    n_output: int
    n_against: int
    share_output: float
    share_against: float

    @property
    def change(self) -> float:
        """Share in the output less that in the other."""
        return self.share_output - self.share_against

    def to_dict(self) -> dict[str, str | int | float]:
        """Give everything in types that JSON has."""
        return {
            "label": self.label,
            "n_output": self.n_output,
            "n_against": self.n_against,
            "share_output": self.share_output,
            "share_against": self.share_against,
            "change": self.change,
        }


@dataclass(frozen=True, slots=True)
class LabelDrift:
    """How far the shares of the labels are apart, over all answers of either output, not only of images in both."""

    total_variation: float
    """The share of answers that would have to change for the shares to be equal, 0 to 1."""
    by_chance: float
    """What it would be on average for two samples of such sizes from the same images; of the same images it is 0."""
    stability_index: float
    """The population stability index: below 0.1 is usually called stable, above 0.25 shifted."""
    shares: tuple[LabelShare, ...]
    """The most changed first."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "total_variation": self.total_variation,
            "by_chance": self.by_chance,
            "stability_index": self.stability_index,
            "shares": [share.to_dict() for share in self.shares],
        }


@dataclass(frozen=True, slots=True)
class ScoreDrift:
    """How far the scores of best answers are apart."""

    ks_low: float
    """Kolmogorov and Smirnov's statistic, the largest gap of the two distributions, is at least this ..."""
    ks_high: float
    """... and at most this; it is known from bins of scores (`zsic.evaluate.grid`)."""
    mean_output: float | None
    mean_against: float | None
    edges: tuple[float, ...]
    """Of the bins below: each holds its lower edge, the last one its upper edge too."""
    n_output: tuple[int, ...]
    n_against: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "ks_low": self.ks_low,
            "ks_high": self.ks_high,
            "mean_output": self.mean_output,
            "mean_against": self.mean_against,
            "edges": list(self.edges),
            "n_output": list(self.n_output),
            "n_against": list(self.n_against),
        }


class AnswerCounts:
    """The answers of one output so far, by label and by score."""

    def __init__(self) -> None:
        self.n_C: Counts = np.zeros(0, np.int64)
        self.n_Z: Counts = np.zeros(N_BINS, np.int64)
        self.n_shown: Counts = np.zeros(N_SHOWN, np.int64)
        self.score_sum = 0.0

    def add(self, label_N: Counts, score_N: npt.NDArray[np.float32]) -> None:
        """Count answers."""
        n_C = np.bincount(label_N, minlength=len(self.n_C))
        n_C[: len(self.n_C)] += self.n_C
        self.n_C = n_C
        score_N = np.clip(np.nan_to_num(score_N, nan=0.0), 0, 1)
        self.n_Z += np.bincount(to_bins(score_N), minlength=N_BINS)
        shown_N = np.minimum((score_N.astype(np.float64) * N_SHOWN).astype(np.int64), N_SHOWN - 1)
        self.n_shown += np.bincount(shown_N, minlength=N_SHOWN)
        self.score_sum += float(score_N.sum(dtype=np.float64))

    @property
    def n(self) -> int:
        """Answers in all."""
        return int(self.n_Z.sum())

    @property
    def mean_score(self) -> float | None:
        """Of all answers; None of none."""
        return self.score_sum / self.n if self.n else None


def label_drift(names: list[str], output: AnswerCounts, against: AnswerCounts) -> LabelDrift | None:
    """Compare what two outputs answer; None where one has no answer."""
    if not output.n or not against.n:
        return None
    n_2C = np.zeros((2, len(names)), np.int64)
    for n_C, side in zip(n_2C, (output, against), strict=True):
        n_C[: len(side.n_C)] = side.n_C
    occurs_C: npt.NDArray[np.bool_] = n_2C.sum(0) > 0
    share_2C = n_2C / n_2C.sum(1, keepdims=True)
    pooled_C = n_2C.sum(0) / n_2C.sum()
    gap_C = share_2C[0] - share_2C[1]
    # The mean of |x|, x normal, is sqrt(2 / pi) standard deviations.
    deviation_C = np.sqrt(pooled_C * (1 - pooled_C) * (1 / output.n + 1 / against.n))
    # Half an answer more for each label: an empty share would make the index infinite.
    smooth_2C = (n_2C[:, occurs_C] + 0.5) / (n_2C.sum(1, keepdims=True) + 0.5 * occurs_C.sum())
    index = float(((smooth_2C[0] - smooth_2C[1]) * np.log(smooth_2C[0] / smooth_2C[1])).sum())
    order = np.argsort(-np.abs(gap_C), kind="stable")
    return LabelDrift(
        total_variation=float(np.abs(gap_C).sum() / 2),
        by_chance=float(sqrt(2 / pi) * deviation_C.sum() / 2),
        stability_index=index,
        shares=tuple(
            LabelShare(names[c], int(n_2C[0, c]), int(n_2C[1, c]), float(share_2C[0, c]), float(share_2C[1, c]))
            for c in order.tolist()
            if occurs_C[c]
        ),
    )


def score_drift(output: AnswerCounts, against: AnswerCounts) -> ScoreDrift | None:
    """Compare the scores of two outputs; None where one has no answer."""
    if not output.n or not against.n:
        return None
    below_2Z = np.stack([np.append(0, np.cumsum(side.n_Z)) / side.n for side in (output, against)])
    gap_Z = below_2Z[0] - below_2Z[1]
    # Within a bin one distribution may rise at its beginning and the other at its end.
    most_Z = np.maximum(below_2Z[0, 1:] - below_2Z[1, :-1], below_2Z[1, 1:] - below_2Z[0, :-1])
    return ScoreDrift(
        ks_low=float(np.abs(gap_Z).max()),
        ks_high=min(1.0, float(most_Z.max())),
        mean_output=output.mean_score,
        mean_against=against.mean_score,
        edges=tuple(i / N_SHOWN for i in range(N_SHOWN + 1)),
        n_output=tuple(output.n_shown.tolist()),
        n_against=tuple(against.n_shown.tolist()),
    )
