"""The rows that are shown, with everything that is told of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from zsic.core.outcome import Outcome
from zsic.report.answer_table import AnswerTable
from zsic.report.survey import KINDS, Judge, Survey

_MOST_KEPT, _KEPT_CHARS = 20, 400
"""Kept columns of a row, and letters of each: a page is no table."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One of a row's best labels."""

    label: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Card:
    """One row of the output."""

    id: int
    uri: str
    key: str | None
    outcome: str
    detail: str | None
    width: int | None
    height: int | None
    label: str | None
    score: float | None
    predictions: tuple[Prediction, ...]
    kinds: tuple[str, ...]
    """Why it is shown."""
    labels: tuple[str, ...] = ()
    """With `mode: multi`: all that fit."""
    path: tuple[str, ...] = ()
    """Where labels have parents: from the top to the answer."""
    truth: tuple[str, ...] | None = None
    is_right: bool | None = None
    """None where nobody says what the image shows, or it could not be read."""
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The shortest name that people know it by: its key, or the end of its uri."""
        return self.uri.rstrip("/").rpartition("/")[2] if self.key is None else self.key

    @property
    def margin(self) -> float | None:
        """Lead of the best score over the second."""
        best = self.predictions[:2]
        return best[0].score - best[1].score if len(best) == 2 else None


def read_cards(table: AnswerTable, judge: Judge, found: Survey) -> list[Card]:
    """Read the rows that were picked, label by label as `found` has them; failed ones come last."""
    cards = [
        card
        for batch in table.rows(found.ids_of, judge.columns)
        for card in _cards_of(batch, table, judge, found.picked)
    ]
    place = {count.label: at for at, count in enumerate(found.labels)}
    outcome = {name: at for at, name in enumerate(found.outcomes)}

    def order(card: Card) -> tuple[Any, ...]:
        is_ok = card.outcome == Outcome.OK
        at = place.get(card.label, len(place)) if is_ok else outcome.get(card.outcome, 0)
        return (not is_ok, at, KINDS.index(card.kinds[0]), card.id)

    return sorted(cards, key=order)


def _cards_of(
    batch: pa.RecordBatch, table: AnswerTable, judge: Judge, picked: dict[int, tuple[str, ...]]
) -> list[Card]:
    name = table.columns.name
    is_bad_shard = np.array([outcome == Outcome.BAD_SHARD for outcome in batch["outcome"].to_pylist()])
    code_B, is_right_B = np.full(len(batch), -1, np.int64), np.zeros(len(batch), bool)
    judged = batch.filter(pa.array(~is_bad_shard))
    code, is_right, _ = judge.decide(judged, judge.vocabulary.answered(judged[name("label")]))
    code_B[~is_bad_shard], is_right_B[~is_bad_shard] = code, is_right
    kept_names = table.kept[:_MOST_KEPT]
    return [
        Card(
            id=row["id"],
            uri=row["uri"],
            key=row["key"],
            outcome=row["outcome"],
            detail=row["detail"],
            width=row["width"],
            height=row["height"],
            label=row[name("label")],
            score=row[name("score")],
            predictions=tuple(Prediction(**each) for each in row[name("predictions")] or ()),
            kinds=picked[row["id"]],
            labels=tuple(row.get(name("labels")) or ()),
            path=tuple(row.get(name("path")) or ()),
            truth=judge.name(int(code)),
            is_right=bool(is_right) if code >= 0 and row["outcome"] == Outcome.OK else None,
            kept=tuple((column, _cut(row[column])) for column in kept_names if row[column] is not None),
        )
        for row, code, is_right in zip(batch.to_pylist(), code_B, is_right_B, strict=True)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _KEPT_CHARS else text[: _KEPT_CHARS - 1] + "…"
