"""What differs between two outputs: image by image, against the truth, and as wholes.

The images that both have are joined by uri and key, for ids are an output's own.

Shape legend: B rows of one batch, J pairs of rows, U pairs of answers, N (row, true label) pairs, C labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zsic.core.errors import SpecError
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.confusion import ConfusionCounts
from zsic.evaluate.drift import AnswerCounts, LabelDrift, ScoreDrift, label_drift, score_drift
from zsic.evaluate.files import Filesystem
from zsic.evaluate.mcnemar import PairedAccuracy
from zsic.evaluate.pairing import Dealer, Pairs, pair
from zsic.evaluate.parts import FAILED, REJECTED, Parts, Rows, drop_shards
from zsic.evaluate.truth import Truth, show_key
from zsic.evaluate.vocabulary import Ids, TrueLabels, Vocabulary

_N_EXAMPLES = 3
_N_NAMED = 10
"""How many of the images that one output lacks are named."""
_N_WATCHED = 200
"""Pairs of answers of each file of rows whose examples are kept; the frequent ones are frequent in every file."""
_PSEUDO = {FAILED: "(failed)", REJECTED: "(rejected)"}
"""Shown in place of a label."""


@dataclass(frozen=True, slots=True)
class Change:
    """Images that got one answer before and another now; `(failed)` and `(rejected)` stand for no answer."""

    against: str
    output: str
    n: int
    examples: tuple[tuple[str, str | None], ...]
    """The uri and key of a few."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        examples = [{"uri": uri, "key": key} for uri, key in self.examples]
        return {"against": self.against, "output": self.output, "n": self.n, "examples": examples}


@dataclass(frozen=True, slots=True)
class LabelChange:
    """Images of one true label that were gained and lost."""

    label: str
    accuracy: PairedAccuracy

    def to_dict(self) -> dict[str, Any]:
        """Give everything in types that JSON has."""
        return {"label": self.label, **self.accuracy.to_dict()}


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
    """Images in both by true label, where neither output has it, nor a synonym; None when labels are not known."""
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
    tally = _Tally(truth, vocabulary)
    with TemporaryDirectory(prefix="zsic-compare-", dir=temp_folder) as folder:
        places = Path(folder) / "output", Path(folder) / "against"
        with Dealer(places[0]) as dealer:
            tally.deal_output(sides[0], dealer)
        with Dealer(places[1]) as dealer:
            tally.deal_against(sides[1], dealer)
        tally.require_truth()
        for pairs in pair(*places):
            tally.add(pairs)
    return tally.close(n_changes)


def _known_labels(sides: tuple[Parts, Parts]) -> list[str] | None:
    """The label sets of both outputs; None unless both are known."""
    output, against = (side.labels() for side in sides)
    return None if output is None or against is None else list(dict.fromkeys([*output, *against]))


class _Tally:
    """The counts so far."""

    def __init__(self, truth: Truth | None, vocabulary: Vocabulary) -> None:
        self._truth, self._vocabulary = truth, vocabulary
        self._true_labels = TrueLabels(vocabulary)
        self._answers = AnswerCounts(), AnswerCounts()
        self._n_rows = [0, 0]
        self._n_matched = 0
        self._sought = ""
        self._n_only = [0, 0]
        self._only: tuple[list[str], list[str]] = ([], [])
        self._n_both = self._n_same = self._n_scored = self._n_repeated = 0
        self._score_change = self._absolute_score_change = 0.0
        self._changes = ConfusionCounts()
        self._examples: dict[tuple[int, int], list[tuple[str, str | None]]] = {}
        self._paired_4 = np.zeros(4, np.int64)
        self._paired_C4 = np.zeros((0, 4), np.int64)

    def deal_output(self, parts: Parts, dealer: Dealer) -> None:
        """Count the answers of the output, and deal out its rows with their truth."""
        columns = ("uri", "key", *(self._truth.columns if self._truth else ()))
        for batch in parts.batches(columns=columns, predictions=False):
            batch = drop_shards(batch)
            if len(batch) == 0:
                continue
            code_B = np.full(len(batch), -1, np.int32)
            if self._truth is not None:
                match = self._truth.match(batch)
                self._sought = self._sought or match.sought
                self._n_matched += int((match.code_B >= 0).sum())
                code_B = match.code_B.astype(np.int32)
            dealer.add(batch, {**self._count(Rows(batch, parts.columns, self._vocabulary), 0), "code": code_B})

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

    def require_truth(self) -> None:
        """Raise `SpecError` when there is a truth that no row of the output has."""
        if self._truth is None or self._n_matched:
            return
        known = show_key(self._truth.keys[0]) if self._truth.keys else "nothing"
        raise SpecError(
            f"truth: none of the output's {self._n_rows[0]} rows has one; looked for {self._sought!r} first, "
            f"and the truth has {known!r} first"
        )

    def add(self, pairs: Pairs) -> None:
        """Compare the rows of one file."""
        self._n_repeated += pairs.n_repeated
        for side, table, rows in ((0, pairs.output, pairs.only_output), (1, pairs.against, pairs.only_against)):
            self._n_only[side] += len(rows)
            for row in rows[: max(0, _N_NAMED - len(self._only[side]))].tolist():
                uri, key = _name(table, row)
                self._only[side].append(uri if key is None else f"{uri} {key}")
        if len(pairs.output_J) == 0:
            return
        now_J, before_J = pairs.output["answer"].to_numpy()[pairs.output_J], pairs.against["answer"].to_numpy()
        now_J, before_J = now_J.astype(np.int64), before_J[pairs.against_J].astype(np.int64)
        is_changed_J = now_J != before_J
        self._n_both += len(now_J)
        self._n_same += int((~is_changed_J).sum())
        self._changes.add(before_J[is_changed_J], now_J[is_changed_J])
        self._keep_examples(pairs, before_J, now_J, is_changed_J)
        self._add_scores(pairs, (now_J >= 0) & (before_J >= 0))
        if self._truth is not None:
            self._true_labels.learn(self._truth.answers)
            self._add_truth(pairs.output["code"].to_numpy()[pairs.output_J].astype(np.int64), before_J, now_J)

    def _keep_examples(self, pairs: Pairs, before_J: Ids, now_J: Ids, is_changed_J: np.ndarray[Any, Any]) -> None:
        changed = np.flatnonzero(is_changed_J)
        # FAILED, the lowest number, is -2.
        key_U, first_U, n_U = np.unique(
            (before_J[changed] - FAILED) << 32 | (now_J[changed] - FAILED), return_index=True, return_counts=True
        )
        for place in np.argsort(-n_U, kind="stable")[:_N_WATCHED].tolist():
            key, row = int(key_U[place]), int(pairs.output_J[changed[first_U[place]]])
            examples = self._examples.setdefault(((key >> 32) + FAILED, (key & 0xFFFFFFFF) + FAILED), [])
            if len(examples) < _N_EXAMPLES:
                examples.append(_name(pairs.output, row))

    def _add_scores(self, pairs: Pairs, is_answered_J: np.ndarray[Any, Any]) -> None:
        now_J = pairs.output["score"].to_numpy()[pairs.output_J].astype(np.float64)
        change_J = (now_J - pairs.against["score"].to_numpy()[pairs.against_J])[is_answered_J]
        self._n_scored += len(change_J)
        self._score_change += float(change_J.sum())
        self._absolute_score_change += float(np.abs(change_J).sum())

    def _add_truth(self, code_J: Ids, before_J: Ids, now_J: Ids) -> None:
        has_truth_J = code_J >= 0
        code_J, before_J, now_J = code_J[has_truth_J], before_J[has_truth_J], now_J[has_truth_J]
        is_right_now_J = (now_J >= 0) & self._true_labels.hold(code_J, now_J)
        was_right_J = (before_J >= 0) & self._true_labels.hold(code_J, before_J)
        # Both, gained, lost, neither.
        kind_J = np.where(is_right_now_J, np.where(was_right_J, 0, 1), np.where(was_right_J, 2, 3))
        self._paired_4 += np.bincount(kind_J, minlength=4)
        row_N, label_N = self._true_labels.spread(code_J)
        n_C4 = np.bincount(label_N * 4 + kind_J[row_N], minlength=4 * len(self._vocabulary)).reshape(-1, 4)
        n_C4[: len(self._paired_C4)] += self._paired_C4
        self._paired_C4 = n_C4

    def close(self, n_changes: int) -> Comparison:
        """Give the result."""
        changes, n_change_pairs = self._most_frequent(n_changes)
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
            accuracy=None if self._truth is None else PairedAccuracy(*self._paired_4.tolist()),
            per_label=self._per_label(),
            unknown=self._unknown(),
            labels=label_drift(self._vocabulary.names, *self._answers),
            scores=score_drift(*self._answers),
        )

    def _most_frequent(self, most: int) -> tuple[tuple[Change, ...], int]:
        before_U, now_U, n_U = self._changes.pairs()
        named_U = np.flatnonzero((before_U >= FAILED) & (now_U >= FAILED))
        best_U = named_U[np.argsort(-n_U[named_U], kind="stable")][:most]
        chosen = zip(before_U[best_U].tolist(), now_U[best_U].tolist(), n_U[best_U].tolist(), strict=True)
        return (
            tuple(
                Change(self._show(before), self._show(now), n, tuple(self._examples.get((before, now), ())))
                for before, now, n in chosen
            ),
            len(named_U),
        )

    def _show(self, answer: int) -> str:
        return _PSEUDO[answer] if answer in _PSEUDO else self._vocabulary.names[answer]

    def _per_label(self) -> tuple[LabelChange, ...]:
        rows = [
            LabelChange(name, PairedAccuracy(*counts))
            for name, counts in zip(self._vocabulary.names, self._paired_C4.tolist(), strict=False)
            if any(counts)
        ]
        return tuple(sorted(rows, key=lambda row: -abs(row.accuracy.n_gained - row.accuracy.n_lost)))

    def _unknown(self) -> dict[str, int] | None:
        if not self._vocabulary.is_known:
            return None
        n_known = self._vocabulary.n_known
        n_C = self._paired_C4[n_known:].sum(1).tolist()
        counts = Counter({name: n for name, n in zip(self._vocabulary.names[n_known:], n_C, strict=False) if n})
        return dict(counts.most_common())


def _name(table: Any, row: int) -> tuple[str, str | None]:
    return table["uri"][row].as_py(), table["key"][row].as_py()
