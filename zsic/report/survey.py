"""One pass over an output: what is counted of all rows, and which few are chosen to be shown.

Shape legend: B rows of one batch, C labels and behind them the rejected, N picked rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.outcome import Outcome
from zsic.evaluate import Evaluation, Truth
from zsic.evaluate.grid import N_BINS, first_of_bins, to_bins
from zsic.evaluate.matching import Matching
from zsic.evaluate.vocabulary import Ids, Vocabulary
from zsic.report.answer_table import AnswerTable, margins
from zsic.report.selection import Best, shuffle
from zsic.report.spread import Histogram, Spread

SUREST, LEAST_SURE, RANDOM, MISTAKE, FAILED = "surest", "least sure", "random", "mistake", "failed"
KINDS = (MISTAKE, LEAST_SURE, SUREST, RANDOM, FAILED)
"""Why a row is shown, in the order in which the rows of one label come."""

_FEWEST, _MOST = 8, 40
"""Rows of one label and kind that are kept while it is not known how many labels are in use."""
_N_FAILED = 6
"""Of one outcome."""
_N_PAIRS = 30
_N_OF_A_PAIR = 3
_N_SCORE_BINS, _N_SIMILARITY_BINS = 25, 200
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class LabelCount:
    """One label, as it was answered."""

    label: str | None
    """None stands for the images that no label fits."""
    n: int
    mean_score: float | None
    mean_margin: float | None
    """Lead of the best score over the second, on average."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What an output holds."""

    n_rows: int
    outcomes: dict[str, int]
    labels: tuple[LabelCount, ...]
    """Those that were answered, the most frequent first; equal ones in the order of the label set."""
    n_labels: int
    """Of the label set, answered or not."""
    unused: tuple[str, ...]
    """Labels of the set that no image got."""
    score_quantiles: dict[float, float]
    scores: Histogram
    margins: Histogram
    similarities: Histogram
    """The rows of all three are `labels`, in that order."""
    picked: dict[int, tuple[str, ...]]
    """Why a row is shown, by its id."""
    ids_of: dict[int, list[int]]
    """The ids that are picked of each part, by its number."""

    @property
    def n_ok(self) -> int:
        """Images that could be read."""
        return self.outcomes.get(Outcome.OK, 0)


class Judge:
    """Whether answers are right, told by the classes with which `zsic evaluate` counts."""

    def __init__(self, vocabulary: Vocabulary, truth: Truth | None) -> None:
        self.vocabulary = vocabulary
        self._truth = truth
        self._matching = None if truth is None else Matching(truth, vocabulary)

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of an output for it."""
        return () if self._truth is None else self._truth.columns

    def decide(self, batch: pa.RecordBatch, answer_B: Ids) -> tuple[Ids, npt.NDArray[np.bool_], Ids]:
        """Give the place of each row's truth (-1: none), whether it is answered rightly, and its first true label."""
        if self._matching is None or len(batch) == 0:
            nothing_B: Ids = np.full(len(batch), -1, np.int64)
            return nothing_B, np.zeros(len(batch), bool), nothing_B
        code_B = self._matching.match(batch)
        known_B = code_B >= 0
        is_right_B, first_B = np.zeros(len(batch), bool), np.full(len(batch), -1, np.int64)
        true_labels = self._matching.true_labels
        is_right_B[known_B] = (answer_B[known_B] >= 0) & true_labels.hold(code_B[known_B], answer_B[known_B])
        first_B[known_B] = true_labels.first_A[code_B[known_B]]
        return code_B, is_right_B, first_B

    def name(self, code: int) -> tuple[str, ...] | None:
        """Give the true labels of a place, as the label set spells them."""
        if self._matching is None or code < 0:
            return None
        _, label_N = self._matching.true_labels.spread(np.array([code]))
        return tuple(self.vocabulary.names[label] for label in label_N.tolist())


def survey(
    table: AnswerTable, judge: Judge, evaluation: Evaluation | None, *, n_images: int, most_failed: int, seed: int
) -> Survey:
    """Count an output in one pass and constant memory, and pick rows: at most `n_images`, and failed ones beside.

    Of each label the surest, the least sure and random ones; with a truth a quarter are mistakes: the surest, and
    some of each of the most confused pairs.  The same output and seed give the same rows.
    """
    n_of_a_kind = max(_FEWEST, min(_MOST, n_images // (3 * max(1, len(judge.vocabulary)))))
    tally = _Tally(table, judge, evaluation, n_images // 4 if evaluation else 0, n_of_a_kind, seed)
    for part, batch in table.batches(judge.columns):
        tally.add(part, batch)
    return tally.close(n_images, most_failed)


class _Tally:
    """The counts so far."""

    def __init__(
        self,
        table: AnswerTable,
        judge: Judge,
        evaluation: Evaluation | None,
        n_mistakes: int,
        n_of_a_kind: int,
        seed: int,
    ) -> None:
        self._columns, self._judge, self._seed = table.columns, judge, seed
        self._n_mistakes, self._n_of_a_kind = n_mistakes, n_of_a_kind
        high = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if table.most_score <= step), 1.0)
        self._scores = Spread(0.0, high, _N_SCORE_BINS)
        self._margins = Spread(0.0, high, _N_SCORE_BINS)
        self._similarities = Spread(-1.0, 1.0, _N_SIMILARITY_BINS)
        self._outcomes: Counter[str] = Counter()
        self._sums_4C: npt.NDArray[np.float64] = np.zeros((4, 0))
        """By label, with the rejected in front: rows, scores, margins, and rows that have a margin."""
        self._n_by_score_Z = np.zeros(N_BINS, np.int64)
        self._best = {kind: Best(n_of_a_kind) for kind in (SUREST, LEAST_SURE, RANDOM)}
        self._failed, self._failures = Best(_N_FAILED), dict[str, int]()
        self._mistakes, self._pairs = Best(n_mistakes), Best(_N_OF_A_PAIR)
        self._pair_keys = _pair_keys(judge.vocabulary, evaluation) if n_mistakes else []

    def add(self, part: int, batch: pa.RecordBatch) -> None:
        """Count one batch."""
        counts = pc.value_counts(batch["outcome"])
        self._outcomes.update(dict(zip(*(counts.field(i).to_pylist() for i in (0, 1)), strict=True)))
        is_ok = pc.equal(batch["outcome"], str(Outcome.OK))
        self._pick_failed(part, batch.filter(pc.invert(is_ok)))
        batch = batch.filter(is_ok)
        if len(batch) == 0:
            return
        vocabulary, name = self._judge.vocabulary, self._columns.name
        answer_B = vocabulary.answered(batch[name("label")])
        # Rejected ones come in front, as label 0.
        label_B, n_labels = answer_B + 1, len(vocabulary) + 1
        score_B = pc.fill_null(batch[name("score")], float("nan")).to_numpy(zero_copy_only=False)
        margin_B, similarity_B = margins(batch[name("predictions")])
        self._scores.add(label_B, score_B, n_labels)
        self._margins.add(label_B, margin_B, n_labels)
        self._similarities.add(label_B, similarity_B, n_labels)
        has_margin_B = np.isfinite(margin_B)
        weights = (np.ones(len(batch)), np.nan_to_num(score_B), np.nan_to_num(margin_B), has_margin_B)
        sums = [np.bincount(label_B, weight_B, minlength=n_labels) for weight_B in weights]
        self._sums_4C = np.stack(sums, dtype=np.float64) + _widened(self._sums_4C, n_labels)
        self._n_by_score_Z += np.bincount(to_bins(score_B[answer_B >= 0]), minlength=N_BINS)
        # Many scores are 1 to the last bit: then the more similar one is the surer.
        value_B = np.nan_to_num(score_B).astype(np.float64) + 1e-9 * np.nan_to_num(similarity_B)
        id_B = batch["id"].to_numpy()
        self._best[SUREST].add(label_B, value_B, id_B, part)
        self._best[LEAST_SURE].add(label_B, -value_B, id_B, part)
        self._best[RANDOM].add(label_B, shuffle(id_B, self._seed), id_B, part)
        if self._n_mistakes:
            self._pick_mistakes(part, batch, answer_B, value_B)

    def _pick_failed(self, part: int, batch: pa.RecordBatch) -> None:
        if len(batch) == 0:
            return
        group_B = np.array(
            [self._failures.setdefault(name, len(self._failures)) for name in batch["outcome"].to_pylist()]
        )
        id_B = batch["id"].to_numpy()
        self._failed.add(group_B, shuffle(id_B, self._seed), id_B, part)

    def _pick_mistakes(self, part: int, batch: pa.RecordBatch, answer_B: Ids, value_B: npt.NDArray[np.float64]) -> None:
        code_B, is_right_B, first_B = self._judge.decide(batch, answer_B)
        wrong = np.flatnonzero((code_B >= 0) & ~is_right_B)
        id_W, value_W = batch["id"].to_numpy()[wrong], value_B[wrong]
        self._mistakes.add(np.zeros(len(wrong), np.int64), value_W, id_W, part)
        key_W = first_B[wrong] << 32 | np.maximum(answer_B[wrong], 0)
        for pair, key in enumerate(self._pair_keys):
            of_pair = np.flatnonzero((key_W == key) & (answer_B[wrong] >= 0))
            self._pairs.add(np.full(len(of_pair), pair), value_W[of_pair], id_W[of_pair], part)

    def close(self, n_images: int, most_failed: int) -> Survey:
        """Give the result."""
        names = [None, *self._judge.vocabulary.names]
        sums_4C = _widened(self._sums_4C, len(names))
        n_C = sums_4C[0].astype(np.int64)
        # The rejected last, in front of none; equally frequent labels in the order of the set.
        order = sorted(np.flatnonzero(n_C).tolist(), key=lambda c: (c == 0, -n_C[c], c))
        n_known = self._judge.vocabulary.n_known
        picked = self._picked(order, n_images, most_failed)
        ids_of: dict[int, list[int]] = {}
        for row, part in picked:
            ids_of.setdefault(part, []).append(row)
        return Survey(
            n_rows=self._outcomes.total(),
            outcomes=dict(self._outcomes.most_common()),
            labels=tuple(
                LabelCount(names[c], int(n), _mean(score, n if c else 0), _mean(margin, n_margins))
                for c, (n, score, margin, n_margins) in ((c, sums_4C[:, c].tolist()) for c in order)
            ),
            n_labels=n_known or len(names) - 1,
            unused=tuple(str(names[c]) for c in range(1, n_known + 1) if not n_C[c]),
            score_quantiles=_quantiles(self._n_by_score_Z),
            scores=_in_order(self._scores.close(), order),
            margins=_in_order(self._margins.close(), order),
            similarities=_in_order(self._similarities.close(), order),
            picked={row: tuple(kind for kind in KINDS if kind in kinds) for (row, _), kinds in picked.items()},
            ids_of=ids_of,
        )

    def _picked(self, order: Sequence[int], n_images: int, most_failed: int) -> dict[tuple[int, int], list[str]]:
        """Why rows are picked, by id and number of the part."""
        picked: dict[tuple[int, int], list[str]] = {}

        def pick(kind: str, rows: Sequence[tuple[int, int]], most: int) -> None:
            for row in rows:
                kinds = picked.get(row, [])
                if kind not in kinds and (kinds or len(picked) < most):
                    picked[row] = [*kinds, kind]

        for pair in range(len(self._pair_keys)):
            pick(MISTAKE, self._pairs.of(pair), self._n_mistakes)
        pick(MISTAKE, self._mistakes.of(0), self._n_mistakes)
        left = n_images - len(picked)
        n_each = max(1, min(self._n_of_a_kind, left // (3 * max(len(order), 1))))
        for c in order[: max(1, left // (3 * n_each))]:
            for kind, best in self._best.items():
                pick(kind, best.of(c, n_each), n_images)
        n_shown = len(picked)
        n_each = max(1, min(_N_FAILED, most_failed // max(len(self._failures), 1)))
        # Each outcome gets its share, and the frequent ones what the rare ones leave.
        for n in (n_each, None):
            for group in self._failures.values():
                pick(FAILED, self._failed.of(group, n), n_shown + most_failed)
        return picked


def _pair_keys(vocabulary: Vocabulary, evaluation: Evaluation | None) -> list[int]:
    """The most confused pairs, as numbers of their labels in one."""
    pairs = evaluation.confused[:_N_PAIRS] if evaluation else ()
    answered = vocabulary.answered(pa.array([pair.answered for pair in pairs], pa.string())).tolist()
    return [vocabulary.true(pair.true) << 32 | answer for pair, answer in zip(pairs, answered, strict=True)]


def _widened(sums_4C: npt.NDArray[np.float64], n_labels: int) -> npt.NDArray[np.float64]:
    """Make room for labels that are new."""
    return np.pad(sums_4C, ((0, 0), (0, n_labels - sums_4C.shape[1])))


def _mean(total: float, n: float) -> float | None:
    return total / n if n else None


def _quantiles(n_Z: npt.NDArray[np.int64]) -> dict[float, float]:
    """Give some quantiles, to within a hundredth of their distance to 0 or 1."""
    if not n_Z.any():
        return {}
    upto_Z = np.cumsum(n_Z)
    at = np.searchsorted(upto_Z, [share * upto_Z[-1] for share in _QUANTILES])
    return dict(zip(_QUANTILES, first_of_bins()[np.minimum(at, len(n_Z) - 1)].tolist(), strict=True))


def _in_order(histogram: Histogram, order: Sequence[int]) -> Histogram:
    n_CM = histogram.n_CM
    n_CM = np.pad(n_CM, ((0, max(0, max(order, default=-1) + 1 - len(n_CM))), (0, 0)))
    return Histogram(histogram.low, histogram.high, n_CM[list(order)] if order else n_CM[:0])
