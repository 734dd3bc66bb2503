"""How many of an output's answers are right: of all images, of those that could be read, and of each label.

Shape legend: B rows of one batch, N predictions of its rows, K predictions of one row, C labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.outcome import Outcome
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.bootstrap import Bootstrap
from zsic.evaluate.calibration import Calibration, CalibrationCounts
from zsic.evaluate.classes import (
    ClassCounts,
    GroupedClassCounts,
    LabelAccuracy,
    LabelMeans,
    bootstrap_means,
    count_classes,
    jackknife_means,
)
from zsic.evaluate.confusion import ConfusedPair, ConfusionCounts, most_confused
from zsic.evaluate.coverage import Coverage, CoverageCounts
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.files import Filesystem
from zsic.evaluate.jackknife import N_GROUPS, deal
from zsic.evaluate.matching import Matching
from zsic.evaluate.parts import REJECTED, Parts, Rows, drop_shards
from zsic.evaluate.ranking import RankingCounts
from zsic.evaluate.truth import NOTHING, Truth
from zsic.evaluate.vocabulary import Ids, Vocabulary


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How right one output is.

    `top1`, `topk`, `means` and `per_label` count a failed image, and one that was rejected, as wrong; `top1_of_ok`
    and `topk_of_ok` leave the failed ones out, `top1_of_answered` the rejected ones as well.  An image with several
    true labels is right if the best answer is one of them; one without any (an empty list, where others have several)
    counts in precision alone, where all its answers are wrong.  Intervals are of 95 %: Wilson's for shares of counted
    images, a bootstrap's for the rest, a jackknife's for means over labels where images have several of them.
    """

    n_rows: int
    """Rows of the output, those that stand for an unreadable shard left out."""
    n_bad_shards: int
    """Rows that stand for an unreadable shard, or its rest: their images are counted nowhere."""
    n_matched: int
    """Rows that have a truth."""
    n_scored: int
    """Rows that have a truth and could be read."""
    joined_by: dict[str, int]
    """How many rows met their truth by which rule."""
    failed: dict[str, int]
    """Rows that have a truth and could not be read, by outcome."""
    k: int
    top1: Accuracy
    topk: Accuracy
    top1_of_ok: Accuracy
    topk_of_ok: Accuracy
    per_label: tuple[LabelAccuracy, ...]
    """The label set in its order, then by name what else is true or answered."""
    n_truth: int | None
    """Rows of the truth's table; None where the truth is no table."""
    n_truth_unmet: int
    """Rows of the truth's table without an image in the output."""
    n_truth_shared: int
    """Rows of the truth's table that several rows of the output met."""
    truth_unmet: tuple[str, ...]
    """The first of those without an image."""
    unknown: dict[str, int] | None
    """Rows by true label, where it is none of the output's, nor a synonym; None when its labels are not known.

    Their images are counted, and can only be wrong.
    """
    set_name: str | None = None
    several: bool = False
    """Whether images have several true labels."""
    n_rejected: int = 0
    """Rows that have a truth and could be read, and no label passed its threshold."""
    n_of_none: int = 0
    """Rows of which no label is true, where others have several; no rows that have a truth elsewhere."""
    top1_of_answered: Accuracy | None = None
    means: LabelMeans | None = None
    mean_average_precision: Estimate | None = None
    """Mean over the labels, where images have several of them; what is below the top K counts as last."""
    confused: tuple[ConfusedPair, ...] = ()
    """Pairs of different labels, the most frequent first; images with several true labels count under each."""
    n_confused_pairs: int = 0
    """Of all, shown or not."""
    calibration: Calibration | None = None
    coverage: Coverage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "n_rows": self.n_rows,
            "n_bad_shards": self.n_bad_shards,
            "n_matched": self.n_matched,
            "n_scored": self.n_scored,
            "joined_by": self.joined_by,
            "failed": self.failed,
            "k": self.k,
            "top1": self.top1.to_dict(),
            "topk": self.topk.to_dict(),
            "top1_of_ok": self.top1_of_ok.to_dict(),
            "topk_of_ok": self.topk_of_ok.to_dict(),
            "per_label": [row.to_dict() for row in self.per_label],
            "n_truth": self.n_truth,
            "n_truth_unmet": self.n_truth_unmet,
            "n_truth_shared": self.n_truth_shared,
            "truth_unmet": list(self.truth_unmet),
            "unknown": self.unknown,
            "set_name": self.set_name,
            "several": self.several,
            "n_rejected": self.n_rejected,
            "n_of_none": self.n_of_none,
            "top1_of_answered": self.top1_of_answered and self.top1_of_answered.to_dict(),
            "means": self.means and self.means.to_dict(),
            "mean_average_precision": self.mean_average_precision and self.mean_average_precision.to_dict(),
            "confused": [pair.to_dict() for pair in self.confused],
            "n_confused_pairs": self.n_confused_pairs,
            "calibration": self.calibration and self.calibration.to_dict(),
            "coverage": self.coverage and self.coverage.to_dict(),
        }


def evaluate(
    output: str | Iterable[str],
    truth: Truth,
    *,
    k: int = 5,
    labels: Sequence[str] | None = None,
    synonyms: Mapping[str, str] | None = None,
    set_name: str | None = None,
    n_confused: int = 100,
    n_replicates: int = 200,
    seed: int = 0,
    filesystem: Filesystem | None = None,
) -> Evaluation:
    """Compare an output's parts, a pattern or a list of paths, with the truth, in one pass and constant memory.

    `labels` is the label set; None takes it from the metadata of the parts.  A true label that is spelled as none of
    them is sought without regard to case and white space, and then among `synonyms` (other name: label).  Where
    rows have fewer than `k` predictions, `k` is as many as they have.  Of several label sets `set_name` chooses one.
    Raises `SpecError` when a part is not an output's, or no row has a truth.
    """
    parts = Parts(output, set_name, filesystem)
    vocabulary = Vocabulary(parts.labels() if labels is None else labels, synonyms)
    tally = _Tally(Matching(truth, vocabulary), vocabulary, k)
    for batch in parts.batches(columns=truth.columns):
        tally.add(batch, parts)
    return tally.close(set_name, n_confused, Bootstrap(n_replicates, seed))


class _Tally:
    """The counts so far."""

    def __init__(self, matching: Matching, vocabulary: Vocabulary, k: int) -> None:
        self._matching, self._vocabulary, self._k = matching, vocabulary, k
        self._true_labels = matching.true_labels
        self._n_bad_shards = self._n_matched = self._n_rejected = self._n_right = self._n_of_none = self._longest = 0
        self._outcomes: Counter[str] = Counter()
        """Of the rows that have a truth."""
        self._n_by_rank_K = np.zeros(k, np.int64)
        """How often a true label stood first, second ... among the predictions."""
        self._confusion = ConfusionCounts()
        self._calibration = CalibrationCounts()
        self._coverage = CoverageCounts()
        self._classes = GroupedClassCounts()
        self._ranking = RankingCounts()
        self._n_rows_G = np.zeros(N_GROUPS, np.int64)

    def add(self, batch: pa.RecordBatch, parts: Parts) -> None:
        """Count one batch."""
        n_before = len(batch)
        batch = drop_shards(batch)
        self._n_bad_shards += n_before - len(batch)
        if len(batch) == 0:
            return
        code_B = self._matching.match(batch)
        has_truth_B = code_B >= 0
        if self._matching.several and (is_of_none_B := code_B == NOTHING).any():
            self._count_of_none(Rows(batch.filter(pa.array(is_of_none_B)), parts.columns, self._vocabulary))
        if not has_truth_B.all():
            batch, code_B = batch.filter(pa.array(has_truth_B)), code_B[has_truth_B]
        if len(batch):
            self._count(Rows(batch, parts.columns, self._vocabulary), code_B)

    def _count(self, rows: Rows, code_B: Ids) -> None:
        answer_B = rows.answer_B
        is_right_B = (answer_B >= 0) & self._true_labels.hold(code_B, answer_B)
        is_answered_B = answer_B >= 0
        counts = pc.value_counts(rows.batch["outcome"].dictionary_decode())
        self._outcomes.update(
            dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
        )
        self._n_right += int(is_right_B.sum())
        self._n_rejected += int((answer_B == REJECTED).sum())
        self._calibration.add(rows.score_B[is_answered_B], is_right_B[is_answered_B])
        self._coverage.add(rows.score_B[is_answered_B], is_right_B[is_answered_B])
        is_true_N = self._true_labels.hold(code_B[rows.row_N], rows.label_N)
        self._count_ranks(rows, is_true_N, is_right_B)
        if self._matching.several:
            self._count_several(rows, code_B, is_true_N, is_right_B)
        else:
            self._confusion.add(self._true_labels.first_A[code_B], answer_B)
            self._matching.count_true(self._true_labels.first_A[code_B])
        self._n_matched += len(rows)

    def _count_ranks(self, rows: Rows, is_true_N: npt.NDArray[np.bool_], is_right_B: npt.NDArray[np.bool_]) -> None:
        """Count at which place the first true label stands: the answer's is the first, whatever the predictions are."""
        self._longest = max(self._longest, int(rows.n_predicted_B.max(initial=0)))
        hit_N = np.flatnonzero(is_true_N)
        # Best first, so the first hit of a row is its best.
        is_first_N = np.diff(rows.row_N[hit_N], prepend=-1) > 0
        hit_N = hit_N[is_first_N]
        row_N, rank_N = rows.row_N[hit_N], np.maximum(rows.rank_N[hit_N], 1)
        is_late_N = (rows.answer_B[row_N] >= 0) & ~is_right_B[row_N] & (rank_N < self._k)
        self._n_by_rank_K += np.bincount(rank_N[is_late_N], minlength=self._k)
        self._n_by_rank_K[0] += int(is_right_B.sum())

    def _count_several(
        self, rows: Rows, code_B: Ids, is_true_N: npt.NDArray[np.bool_], is_right_B: npt.NDArray[np.bool_]
    ) -> None:
        group_B = deal(self._n_matched, len(rows))
        self._n_rows_G += np.bincount(group_B, minlength=N_GROUPS)
        true_row_N, true_label_N = self._true_labels.spread(code_B)
        chosen_row_N, chosen_label_N = rows.chosen
        self._classes.add(
            (true_row_N, true_label_N),
            (chosen_row_N, chosen_label_N),
            self._true_labels.hold(code_B[chosen_row_N], chosen_label_N),
            group_B,
        )
        self._ranking.add(rows.label_N, rows.score_N, is_true_N, group_B[rows.row_N])
        answer_N, is_wrong_N = rows.answer_B[true_row_N], ~is_right_B[true_row_N]
        self._confusion.add(true_label_N[is_wrong_N], answer_N[is_wrong_N])
        self._confusion.add(rows.answer_B[is_right_B], rows.answer_B[is_right_B])
        self._matching.count_true(true_label_N)

    def _count_of_none(self, rows: Rows) -> None:
        """Count what is answered of images of which no label is true: as wrong, wherever answers are counted."""
        group_B = deal(self._n_of_none, len(rows))
        self._n_rows_G += np.bincount(group_B, minlength=N_GROUPS)
        nobody, (_, chosen_label_N) = np.zeros(0, np.int64), rows.chosen
        self._classes.add((nobody, nobody), rows.chosen, np.zeros(len(chosen_label_N), np.bool_), group_B)
        self._ranking.add(rows.label_N, rows.score_N, np.zeros(len(rows.label_N), np.bool_), group_B[rows.row_N])
        self._n_of_none += len(rows)

    def close(self, set_name: str | None, n_confused: int, bootstrap: Bootstrap) -> Evaluation:
        """Give the result.  Raises `SpecError` when no row has a truth."""
        matching = self._matching
        matching.require_rows()
        names, pairs = self._vocabulary.names, self._confusion.pairs()
        n_scored = self._outcomes[Outcome.OK]
        k = max(1, min(self._k, self._longest))
        n_in_topk = int(self._n_by_rank_K[:k].sum())
        mean_precision: Estimate | None = None
        precision_C: list[float | None] = [None] * len(names)
        if self._matching.several:
            by_group = self._classes.by_group(len(names))
            means, counts = jackknife_means(by_group)
            mean_precision, precision_C = self._ranking.close(by_group.true_C, self._n_rows_G)
        else:
            means, counts = bootstrap_means(pairs, len(names), bootstrap), count_classes(pairs, len(names))
        confused, n_confused_pairs = most_confused(names, pairs, n_confused)
        return Evaluation(
            n_rows=matching.n_rows,
            n_bad_shards=self._n_bad_shards,
            n_matched=self._n_matched,
            n_scored=n_scored,
            joined_by=dict(matching.rules),
            failed={name: n for name, n in self._outcomes.most_common() if name != Outcome.OK},
            k=k,
            top1=Accuracy(self._n_right, self._n_matched),
            topk=Accuracy(n_in_topk, self._n_matched),
            top1_of_ok=Accuracy(self._n_right, n_scored),
            topk_of_ok=Accuracy(n_in_topk, n_scored),
            per_label=_label_rows(self._vocabulary, counts, precision_C),
            n_truth=matching.n_truth,
            n_truth_unmet=matching.n_unmet,
            n_truth_shared=matching.n_shared,
            truth_unmet=matching.unmet,
            unknown=_unanswered(matching.unknown(), self._vocabulary, counts),
            set_name=set_name,
            several=self._matching.several,
            n_rejected=self._n_rejected,
            n_of_none=self._n_of_none,
            top1_of_answered=Accuracy(self._n_right, n_scored - self._n_rejected),
            means=means,
            mean_average_precision=mean_precision,
            confused=confused,
            n_confused_pairs=n_confused_pairs,
            calibration=self._calibration.close(bootstrap),
            coverage=self._coverage.close(bootstrap, n_scored),
        )


def _unanswered(unknown: dict[str, int] | None, vocabulary: Vocabulary, counts: ClassCounts) -> dict[str, int] | None:
    """Without those that were answered all the same: labels above others, which have no prompts."""
    if not unknown:
        return unknown
    answered = {name for name, n in zip(vocabulary.names, counts.answered_C.tolist(), strict=True) if n}
    return {name: n for name, n in unknown.items() if name not in answered}


def _label_rows(
    vocabulary: Vocabulary, counts: ClassCounts, precision_C: Sequence[float | None]
) -> tuple[LabelAccuracy, ...]:
    columns = (counts.true_C.tolist(), counts.answered_C.tolist(), counts.right_C.tolist())
    rows = [
        LabelAccuracy(name, Accuracy(n_right, n_true), Accuracy(n_right, n_answered), precision)
        for name, n_true, n_answered, n_right, precision in zip(vocabulary.names, *columns, precision_C, strict=True)
    ]
    beyond = [row for row in rows[vocabulary.n_known :] if row.recall.n or row.precision.n]
    return (*rows[: vocabulary.n_known], *sorted(beyond, key=lambda row: row.label))
