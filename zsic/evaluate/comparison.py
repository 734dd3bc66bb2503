"""What differs between two outputs: image by image, against the truth, and as wholes.

The images that both have are joined by uri and key, for ids are an output's own.

Shape legend: B rows of one batch, J pairs of rows, U pairs of answers, N (row, true label) pairs, C labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.changes import Change, ChangeCounts, LabelChange, name_of
from zsic.evaluate.drift import AnswerCounts, LabelDrift, ScoreDrift, label_drift, score_drift
from zsic.evaluate.files import Filesystem
from zsic.evaluate.matching import Matching
from zsic.evaluate.mcnemar import PairedAccuracy
from zsic.evaluate.pairing import Dealer, Pairs, pair
from zsic.evaluate.parts import Parts, Rows, drop_shards
from zsic.evaluate.truth import Truth
from zsic.evaluate.vocabulary import Ids, Vocabulary

_N_NAMED = 10
"""How many of the images that one output lacks are named."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an output differs from another, which is called `against`; rows of unreadable shards are left out."""

    n_output: int
    n_against: int
    n_both: int
    n_only_output: int
    n_only_against: int
    n_repeated: int
    """Rows left out because an earlier one of their output has their uri and key."""
    only_output: tuple[str, ...]
    """The first few that one output alone has."""
    only_against: tuple[str, ...]
    alike: Accuracy
    """Of the images in both, those with the same best answer; having none is an answer too."""
    changes: tuple[Change, ...]
    """Pairs of answers, the most frequent first."""
    n_change_pairs: int
    """Of all, shown or not."""
    mean_score_change: float | None
    """Of the images answered in both: score less that of the other output."""
    mean_absolute_score_change: float | None
    accuracy: PairedAccuracy | None
    """Of the images in both that have a truth; None without a truth."""
    per_label: tuple[LabelChange, ...]
    """By true label, those with the largest gain or loss first."""
    unknown: dict[str, int] | None
    """Images in both by true label, where neither output has it, nor a synonym; None without a truth or label set."""
    labels: LabelDrift | None
    """Over all answers of either output; None where one has none."""
    scores: ScoreDrift | None

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {
            "n_output": self.n_output,
            "n_against": self.n_against,
            "n_both": self.n_both,
            "n_only_output": self.n_only_output,
            "n_only_against": self.n_only_against,
            "n_repeated": self.n_repeated,
            "only_output": list(self.only_output),
            "only_against": list(self.only_against),
            "alike": self.alike.to_dict(),
            "changes": [change.to_dict() for change in self.changes],
            "n_change_pairs": self.n_change_pairs,
            "mean_score_change": self.mean_score_change,
            "mean_absolute_score_change": self.mean_absolute_score_change,
            "accuracy": self.accuracy and self.accuracy.to_dict(),
            "per_label": [row.to_dict() for row in self.per_label],
            "unknown": self.unknown,
            "labels": self.labels and self.labels.to_dict(),
            "scores": self.scores and self.scores.to_dict(),
        }


def compare(
    output: str | Iterable[str],
    against: str | Iterable[str],
    truth: Truth | None = None,
    *,
    labels: Sequence[str] | None = None,
    synonyms: Mapping[str, str] | None = None,
    set_name: str | None = None,
    against_set_name: str | None = None,
    n_changes: int = 100,
    filesystem: Filesystem | None = None,
    against_filesystem: Filesystem | None = None,
    temp_folder: str | None = None,
) -> Comparison:
    """Compare the parts of two outputs, each a pattern or a list of paths, in one pass over either.

    Memory does not grow with them; in `temp_folder` (None: the system's) some 60 bytes a row lie meanwhile.  The
    truth is looked up for the rows of `output`.  `labels` and `synonyms` are those of `evaluate`.  Raises
    `SpecError` when a part is not an output's, or there is a truth and no row of the output has one.
    """
    sides = Parts(output, set_name, filesystem), Parts(against, against_set_name, against_filesystem)
    vocabulary = Vocabulary(_known_labels(sides) if labels is None else labels, synonyms)
    tally = _Tally(None if truth is None else Matching(truth, vocabulary), vocabulary)
    with TemporaryDirectory(prefix="zsic-compare-", dir=temp_folder) as folder:
        places = Path(folder) / "output", Path(folder) / "against"
        with Dealer(places[0]) as dealer:
            tally.deal_output(sides[0], dealer, truth.columns if truth else ())
        with Dealer(places[1]) as dealer:
            tally.deal_against(sides[1], dealer)
        for pairs in pair(*places):
            tally.add(pairs)
    return tally.close(n_changes)


def _known_labels(sides: tuple[Parts, Parts]) -> list[str] | None:
    """The label sets of both outputs; None unless both are known."""
    output, against = (side.labels() for side in sides)
    return None if output is None or against is None else list(dict.fromkeys([*output, *against]))


class _Tally:
    """The counts so far."""

    def __init__(self, matching: Matching | None, vocabulary: Vocabulary) -> None:
        self._matching, self._vocabulary = matching, vocabulary
        self._answers = AnswerCounts(), AnswerCounts()
        self._n_rows = [0, 0]
        self._n_only = [0, 0]
        self._only: tuple[list[str], list[str]] = ([], [])
        self._n_both = self._n_same = self._n_scored = self._n_repeated = 0
        self._score_change = self._absolute_score_change = 0.0
        self._changes = ChangeCounts()
        self._paired_4 = np.zeros(4, np.int64)
        self._paired_C4 = np.zeros((0, 4), np.int64)

    def deal_output(self, parts: Parts, dealer: Dealer, truth_columns: Sequence[str]) -> None:
        """Count the answers of the output, and deal out its rows with their truth.

        Raises `SpecError` when there is a truth that no row has.
        """
        for batch in parts.batches(columns=("uri", "key", *truth_columns), predictions=False):
            batch = drop_shards(batch)
            if len(batch) == 0:
                continue
            code_B = np.full(len(batch), -1) if self._matching is None else self._matching.match(batch)
            columns = self._count(Rows(batch, parts.columns, self._vocabulary), 0)
            dealer.add(batch, {**columns, "code": code_B.astype(np.int32)})
        if self._matching is not None:
            self._matching.require_rows()

    def deal_against(self, parts: Parts, dealer: Dealer) -> None:
        """Count the answers of the other output, and deal out its rows."""
        for batch in parts.batches(columns=("uri", "key"), predictions=False):
            batch = drop_shards(batch)
            if len(batch):
                dealer.add(batch, self._count(Rows(batch, parts.columns, self._vocabulary), 1))

    def _count(self, rows: Rows, side: int) -> dict[str, np.ndarray[Any, Any]]:
        answer_B, score_B = rows.answer_B, rows.score_B
        self._n_rows[side] += len(rows)
        self._answers[side].add(answer_B[answer_B >= 0], score_B[answer_B >= 0])
        return {"answer": answer_B.astype(np.int32), "score": score_B}

    def add(self, pairs: Pairs) -> None:
        """Compare the rows of one file."""
        self._n_repeated += pairs.n_repeated
        for side, table, rows in ((0, pairs.output, pairs.only_output), (1, pairs.against, pairs.only_against)):
            self._n_only[side] += len(rows)
            for row in rows[: max(0, _N_NAMED - len(self._only[side]))].tolist():
                uri, key = name_of(table, row)
                self._only[side].append(uri if key is None else f"{uri} {key}")
        if len(pairs.output_J) == 0:
            return
        now_J, before_J = pairs.output["answer"].to_numpy()[pairs.output_J], pairs.against["answer"].to_numpy()
        now_J, before_J = now_J.astype(np.int64), before_J[pairs.against_J].astype(np.int64)
        self._n_both += len(now_J)
        self._n_same += int((now_J == before_J).sum())
        self._changes.add(pairs, before_J, now_J)
        self._add_scores(pairs, (now_J >= 0) & (before_J >= 0))
        if self._matching is not None:
            code_J = pairs.output["code"].to_numpy()[pairs.output_J].astype(np.int64)
            self._add_truth(self._matching, code_J, before_J, now_J)

    def _add_scores(self, pairs: Pairs, is_answered_J: np.ndarray[Any, Any]) -> None:
        now_J = pairs.output["score"].to_numpy()[pairs.output_J].astype(np.float64)
        change_J = (now_J - pairs.against["score"].to_numpy()[pairs.against_J])[is_answered_J]
        self._n_scored += len(change_J)
        self._score_change += float(change_J.sum())
        self._absolute_score_change += float(np.abs(change_J).sum())

    def _add_truth(self, matching: Matching, code_J: Ids, before_J: Ids, now_J: Ids) -> None:
        has_truth_J = code_J >= 0
        code_J, before_J, now_J = code_J[has_truth_J], before_J[has_truth_J], now_J[has_truth_J]
        is_right_now_J = (now_J >= 0) & matching.true_labels.hold(code_J, now_J)
        was_right_J = (before_J >= 0) & matching.true_labels.hold(code_J, before_J)
        # Both, gained, lost, neither.
        kind_J = np.where(is_right_now_J, np.where(was_right_J, 0, 1), np.where(was_right_J, 2, 3))
        self._paired_4 += np.bincount(kind_J, minlength=4)
        row_N, label_N = matching.true_labels.spread(code_J)
        matching.count_true(label_N)
        n_C4 = np.bincount(label_N * 4 + kind_J[row_N], minlength=4 * len(self._vocabulary)).reshape(-1, 4)
        n_C4[: len(self._paired_C4)] += self._paired_C4
        self._paired_C4 = n_C4

    def close(self, n_changes: int) -> Comparison:
        """Give the result."""
        changes, n_change_pairs = self._changes.most_frequent(self._vocabulary.names, n_changes)
        n_scored = self._n_scored
        return Comparison(
            n_output=self._n_rows[0],
            n_against=self._n_rows[1],
            n_both=self._n_both,
            n_only_output=self._n_only[0],
            n_only_against=self._n_only[1],
            n_repeated=self._n_repeated,
            only_output=tuple(self._only[0]),
            only_against=tuple(self._only[1]),
            alike=Accuracy(self._n_same, self._n_both),
            changes=changes,
            n_change_pairs=n_change_pairs,
            mean_score_change=self._score_change / n_scored if n_scored else None,
            mean_absolute_score_change=self._absolute_score_change / n_scored if n_scored else None,
            accuracy=None if self._matching is None else PairedAccuracy(*self._paired_4.tolist()),
            per_label=self._per_label(),
            unknown=None if self._matching is None else self._matching.unknown(),
            labels=label_drift(self._vocabulary.names, *self._answers),
            scores=score_drift(*self._answers),
        )

    def _per_label(self) -> tuple[LabelChange, ...]:
        rows = [
            LabelChange(name, PairedAccuracy(*counts))
            for name, counts in zip(self._vocabulary.names, self._paired_C4.tolist(), strict=False)
            if any(counts)
        ]
        return tuple(sorted(rows, key=lambda row: -abs(row.accuracy.n_gained - row.accuracy.n_lost)))
