"""How many of an output's answers are right: of all images, of those that could be read, and of each label.

Shape legend: B rows of one batch, K predictions of one row.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import SpecError
from zsic.core.outcome import Outcome
from zsic.core.schema import read_metadata
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.files import Filesystem, find_files, open_file
from zsic.evaluate.truth import Match, Truth, show_key

_BATCH_ROWS = 65_536
"""Rows in memory at once; the truth is in memory as a whole."""
_N_NAMED = 10
"""How many of the truth's keys without an image are named."""
_PREDICTED = "predictions.list.element.label"


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """How often the images of one label got it."""

    label: str
    top1: Accuracy


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How right one output is.

    `top1` and `topk` count a failed image as wrong; `top1_of_ok` and `topk_of_ok` leave it out.
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
    """The label set in its order, then what only the truth has, by name; failed images count as wrong."""
    n_truth: int | None
    """Rows of the truth's table; None where the truth is no table."""
    n_truth_unmet: int
    """Rows of the truth's table without an image in the output."""
    n_truth_shared: int
    """Rows of the truth's table that several rows of the output met."""
    truth_unmet: tuple[str, ...]
    """The first of those without an image."""
    unknown: dict[str, int] | None
    """Rows by true label, where it is none of the output's; None when the output's labels are not known."""

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
            "per_label": [{"label": row.label, **row.top1.to_dict()} for row in self.per_label],
            "n_truth": self.n_truth,
            "n_truth_unmet": self.n_truth_unmet,
            "n_truth_shared": self.n_truth_shared,
            "truth_unmet": list(self.truth_unmet),
            "unknown": self.unknown,
        }


def evaluate(
    output: str | Iterable[str],
    truth: Truth,
    *,
    k: int = 5,
    labels: Sequence[str] | None = None,
    filesystem: Filesystem | None = None,
) -> Evaluation:
    """Compare an output's parts, a pattern or a list of paths, with the truth, in one pass and constant memory.

    `labels` is the label set; None takes it from the metadata of the parts.  Where rows have fewer than `k`
    predictions, `k` is as many as they have.  Raises `SpecError` when a part is not an output's, or no row
    has a truth.
    """
    tally = _Tally(truth, k)
    for path in find_files(output, filesystem):
        with open_file(path, filesystem) as file:
            part = _open_part(file, path, truth)
            if labels is None:
                labels = _read_labels(part.schema_arrow)
            columns = ["outcome", "label", _PREDICTED, *truth.columns]
            for batch in part.iter_batches(_BATCH_ROWS, columns=columns):
                tally.add(batch)
    return tally.close(labels)


def _open_part(file: Any, path: str, truth: Truth) -> pq.ParquetFile:
    try:
        part = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    except pa.ArrowException as error:
        raise SpecError(f"{path} is not a Parquet file: {error}") from None
    names = part.schema_arrow.names
    for name in ("outcome", "label", "predictions", *truth.columns):
        if name not in names:
            raise SpecError(f"{path} has no column {name!r}; it has {', '.join(names)}")
    return part


def _read_labels(schema: pa.Schema) -> list[str] | None:
    labels = read_metadata(schema, "labels")
    return [str(label) for label in labels] if isinstance(labels, list) else None


@dataclass(slots=True)
class _Tally:
    """The counts so far."""

    truth: Truth
    k: int
    n_rows: int = 0
    n_bad_shards: int = 0
    n_matched: int = 0
    n_right: int = 0
    longest: int = 0
    sought: str = ""
    rules: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of the rows that have a truth."""
    n_by_label: Counter[str] = field(default_factory=Counter)
    n_right_by_label: Counter[str] = field(default_factory=Counter)
    n_by_rank_K: npt.NDArray[np.int64] = field(init=False)
    """How often the true label stood first, second ... among the predictions."""
    met: npt.NDArray[np.int64] = field(init=False)
    """How many rows of the output each key of the truth met."""

    def __post_init__(self) -> None:
        self.n_by_rank_K = np.zeros(self.k, np.int64)
        self.met = np.zeros(len(self.truth.keys), np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch."""
        n_before = len(batch)
        batch = batch.filter(pc.not_equal(batch["outcome"], str(Outcome.BAD_SHARD)))
        self.n_bad_shards += n_before - len(batch)
        self.n_rows += len(batch)
        if len(batch) == 0:
            return
        match = self.truth.match(batch)
        self.sought = self.sought or match.sought
        self.rules += match.rules
        np.add.at(self.met, match.keys_B[match.keys_B >= 0], 1)
        self._count(batch, match)

    def _count(self, batch: pa.RecordBatch, match: Match) -> None:
        has_truth = match.labels.is_valid()
        batch, truth = batch.filter(has_truth), match.labels.filter(has_truth)
        self.n_matched += len(batch)
        self.outcomes.update(_count_values(batch["outcome"]))
        right = pc.fill_null(pc.equal(batch["label"], truth), False)
        self.n_right += pc.sum(right).as_py() or 0
        self.n_by_label.update(_count_values(truth))
        self.n_right_by_label.update(_count_values(truth.filter(right)))
        rank_B, longest = _rank(batch["predictions"], truth)
        self.longest = max(self.longest, longest)
        self.n_by_rank_K += np.bincount(rank_B[rank_B >= 0], minlength=self.k)[: self.k]

    def close(self, labels: Sequence[str] | None) -> Evaluation:
        """Give the result.  Raises `SpecError` when no row has a truth."""
        if self.n_matched == 0:
            known = show_key(self.truth.keys[0]) if self.truth.keys else "nothing"
            raise SpecError(
                f"truth: none of the output's {self.n_rows} rows has one; looked for {self.sought!r} first, "
                f"and the truth has {known!r} first"
            )
        n_scored = self.outcomes[Outcome.OK]
        k = max(1, min(self.k, self.longest))
        n_in_topk = int(self.n_by_rank_K[:k].sum())
        order = dict.fromkeys([*(labels or ()), *sorted(self.n_by_label)])
        unmet = np.flatnonzero(self.met == 0)
        keys = self.truth.keys
        return Evaluation(
            n_rows=self.n_rows,
            n_bad_shards=self.n_bad_shards,
            n_matched=self.n_matched,
            n_scored=n_scored,
            joined_by=dict(self.rules),
            failed={name: n for name, n in self.outcomes.most_common() if name != Outcome.OK},
            k=k,
            top1=Accuracy(self.n_right, self.n_matched),
            topk=Accuracy(n_in_topk, self.n_matched),
            top1_of_ok=Accuracy(self.n_right, n_scored),
            topk_of_ok=Accuracy(n_in_topk, n_scored),
            per_label=tuple(
                LabelAccuracy(name, Accuracy(self.n_right_by_label[name], self.n_by_label[name])) for name in order
            ),
            n_truth=len(keys) or None,
            n_truth_unmet=len(unmet),
            n_truth_shared=int((self.met > 1).sum()),
            truth_unmet=tuple(show_key(keys[i]) for i in unmet[:_N_NAMED].tolist()),
            unknown=None if labels is None else self._count_unknown(frozenset(labels)),
        )

    def _count_unknown(self, labels: frozenset[str]) -> dict[str, int]:
        return {label: n for label, n in self.n_by_label.most_common() if label not in labels}


def _count_values(texts: pa.StringArray) -> dict[str, int]:
    counts = pc.value_counts(texts)
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


def _rank(predictions: pa.ListArray, truth: pa.StringArray) -> tuple[npt.NDArray[np.int64], int]:
    """Find the place of the true label among each row's predictions, -1 where it is not; and the most K."""
    n_B = pc.fill_null(pc.list_value_length(predictions), 0).to_numpy()
    row_N = pc.list_parent_indices(predictions)
    is_right_N = np.asarray(pc.equal(predictions.flatten().field("label"), truth.take(row_N)), bool)
    place_N = np.arange(len(is_right_N)) - np.repeat(np.cumsum(n_B) - n_B, n_B)
    rank_B = np.full(len(truth), -1, np.int64)
    rank_B[row_N.to_numpy()[is_right_N]] = place_N[is_right_N]
    return rank_B, int(n_B.max(initial=0))
