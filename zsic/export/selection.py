"""Which rows of an output are good enough to be learnt from.

Shape legend: N rows of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.errors import SpecError
from zsic.core.schema import read_metadata
from zsic.storage.table import Table

SELECTED = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("uri", pa.string()),
        pa.field("key", pa.string()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
    ]
)
_HELD_ROWS = 1_000_000
"""So many may wait before the best of each label are picked anew."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a row must have to be chosen; rows without an answer never are.

    Raises `SpecError` for what no row could have.
    """

    set_name: str | None = None
    """Of several label sets, the one that labels the images."""
    min_score: float | None = None
    min_margin: float | None = None
    """Least difference between the best score and the second."""
    labels: tuple[str, ...] = ()
    """Only these; none means all."""
    per_label: int | None = None
    """At most so many of a label: those with the best scores, of equal ones the first by id."""

    def __post_init__(self) -> None:
        for flag, value in (("--min-score", self.min_score), ("--min-margin", self.min_margin)):
            if value is not None and not 0 <= value <= 1:
                raise SpecError(f"{flag} is {value:g}; scores, and their differences, are from 0 to 1")
        if self.per_label is not None and self.per_label < 1:
            raise SpecError(f"--per-label is {self.per_label}; use at least 1")


def select(table: Table, selection: Selection) -> Iterator[pa.RecordBatch]:
    """Give the chosen rows, as `SELECTED` has them, in the order of the parts.

    Raises `SpecError` before the first for a label set or label that the output has not.
    """
    _check_labels(table, selection)
    best_N = None if selection.per_label is None else _best_of_each(table, selection, selection.per_label)
    for batch in _passing(table, selection):
        if best_N is not None:
            batch = batch.filter(pa.array(np.isin(batch["id"].to_numpy(), best_N, assume_unique=True)))
        if batch.num_rows:
            yield batch


def _check_labels(table: Table, selection: Selection) -> None:
    column = table.answer_column("label", selection.set_name)
    told = read_metadata(table.schema, "labels")
    missing = set(selection.labels) - set(_names_of(told, selection.set_name))
    if not missing:
        return
    # A footer does not tell many labels, nor those above others in a tree: then rows do.
    for batch in table.read([column]):
        missing -= set(pc.unique(batch.column(0)).to_pylist())
        if not missing:
            return
    raise SpecError(f"--labels-only: {table.store.uri} has no label {', '.join(map(repr, sorted(missing)))}")


def _names_of(told: object, set_name: str | None) -> list[str]:
    names = told.get(set_name) if isinstance(told, dict) else told
    return names if isinstance(names, list) else []


def _passing(table: Table, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows that each for itself is good enough."""
    label, score = (table.answer_column(name, selection.set_name) for name in ("label", "score"))
    columns = ["id", "uri", "key", label, score]
    margin = None
    if selection.min_margin is not None:
        margin = table.answer_column("predictions", selection.set_name)
        columns.append(f"{margin}.list.element.score")
    labels = pa.array(selection.labels, pa.string())
    for batch in table.read(columns):
        passes = pc.is_valid(batch[label])
        if selection.labels:
            passes = pc.and_(passes, pc.is_in(batch[label], labels))
        if selection.min_score is not None:
            # In float32, as scores are: 0.9 is to mean the same on both sides.
            least = pa.scalar(np.float32(selection.min_score))
            passes = pc.and_(passes, pc.fill_null(pc.greater_equal(batch[score], least), False))
        if margin is not None:
            margin_N = _margins(batch[margin], batch[label].is_valid(), table.store.uri)
            passes = pc.and_(passes, pa.array(margin_N >= np.float32(selection.min_margin)))
        chosen = batch.select(["id", "uri", "key", label, score]).filter(passes)
        yield pa.RecordBatch.from_arrays(chosen.columns, names=SELECTED.names).cast(SELECTED)


def _margins(predictions: pa.ListArray, answered: pa.BooleanArray, uri: str) -> npt.NDArray[np.float32]:
    """By how much the best score is above the second; NaN where there is no answer.

    Raises `SpecError` where answers have no second.
    """
    n_N = pc.fill_null(pc.list_value_length(predictions), 0).to_numpy()
    answered_N = answered.to_numpy(zero_copy_only=False)
    if (n_N[answered_N] < 2).any():
        raise SpecError(
            f"--min-margin: {uri} keeps one prediction a row; classify with --top-k 2 or more, or leave it out"
        )
    scores = predictions.flatten().field("score").to_numpy()
    at_N = (np.cumsum(n_N) - n_N)[n_N >= 2]
    margin_N = np.full(len(n_N), np.nan, np.float32)
    margin_N[n_N >= 2] = scores[at_N] - scores[at_N + 1]
    return margin_N


def _best_of_each(table: Table, selection: Selection, n: int) -> npt.NDArray[np.int64]:
    """The ids of the `n` best rows of each label, sorted; holds twice as many rows, or a million."""
    held: list[pa.RecordBatch] = []
    n_held, limit = 0, _HELD_ROWS
    for batch in _passing(table, selection):
        held.append(batch.select(["id", "label", "score"]))
        n_held += batch.num_rows
        if n_held > limit:
            held = _keep_best(held, n)
            n_held = sum(each.num_rows for each in held)
            limit = max(_HELD_ROWS, 2 * n_held)
    kept = _keep_best(held, n)
    return np.sort(np.concatenate([np.empty(0, np.int64), *(each["id"].to_numpy() for each in kept)]))


def _keep_best(batches: list[pa.RecordBatch], n: int) -> list[pa.RecordBatch]:
    if not batches:
        return []
    table = pa.Table.from_batches(batches).sort_by(
        [("label", "ascending"), ("score", "descending"), ("id", "ascending")]
    )
    if not table.num_rows:
        return []
    codes_N = table["label"].combine_chunks().dictionary_encode().indices.to_numpy()
    # Sorted by label, codes rise; the first of each tells the place of the others.
    first_N = np.searchsorted(codes_N, codes_N)
    kept = table.filter(pa.array(np.arange(len(codes_N)) - first_N < n))
    return list(kept.combine_chunks().to_batches())
