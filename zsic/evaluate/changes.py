"""Answers that changed from one output to another.

Shape legend: J pairs of rows, U pairs of answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zsic.evaluate.confusion import ConfusionCounts
from zsic.evaluate.mcnemar import PairedAccuracy
from zsic.evaluate.pairing import Pairs
from zsic.evaluate.parts import FAILED, REJECTED
from zsic.evaluate.vocabulary import Ids

Name = tuple[str, str | None]
"""The uri and key of an image."""

_N_EXAMPLES = 3
_N_WATCHED = 200
"""Pairs of answers of each file of rows whose examples are kept; the frequent ones are frequent in every file."""
_NO_LABEL = {FAILED: "(failed)", REJECTED: "(rejected)"}


@dataclass(frozen=True, slots=True)
class Change:
    """Images that have one answer in the one output and another in the other."""

    against: str
    """`(failed)` and `(rejected)` stand for no answer."""
    output: str
    n: int
    examples: tuple[Name, ...]
    """A few of them."""

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


class ChangeCounts:
    """Changed answers so far."""

    def __init__(self) -> None:
        self._counts = ConfusionCounts()
        self._examples: dict[tuple[int, int], list[Name]] = {}

    def add(self, pairs: Pairs, before_J: Ids, now_J: Ids) -> None:
        """Count the pairs of rows whose answers differ."""
        changed = np.flatnonzero(now_J != before_J)
        before, now = before_J[changed], now_J[changed]
        self._counts.add(before, now)
        # FAILED is the lowest number.
        _, first_U, n_U = np.unique((before - FAILED) << 32 | (now - FAILED), return_index=True, return_counts=True)
        for place in np.argsort(-n_U, kind="stable")[:_N_WATCHED].tolist():
            first = int(first_U[place])
            examples = self._examples.setdefault((int(before[first]), int(now[first])), [])
            if len(examples) < _N_EXAMPLES:
                examples.append(name_of(pairs.output, int(pairs.output_J[changed[first]])))

    def most_frequent(self, labels: Sequence[str], most: int) -> tuple[tuple[Change, ...], int]:
        """Give the most frequent changes, and how many different ones there are."""

        def show(answer: int) -> str:
            return _NO_LABEL[answer] if answer in _NO_LABEL else labels[answer]

        before_U, now_U, n_U = self._counts.pairs()
        named_U = np.flatnonzero((before_U >= FAILED) & (now_U >= FAILED))
        best_U = named_U[np.argsort(-n_U[named_U], kind="stable")][:most]
        chosen = zip(before_U[best_U].tolist(), now_U[best_U].tolist(), n_U[best_U].tolist(), strict=True)
        return (
            tuple(
                Change(show(before), show(now), n, tuple(self._examples.get((before, now), ())))
                for before, now, n in chosen
            ),
            len(named_U),
        )


def name_of(table: Any, row: int) -> Name:
    """Give the uri and key of a row."""
    return table["uri"][row].as_py(), table["key"][row].as_py()
