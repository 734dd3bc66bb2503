"""Which rows met a truth, by which rule, and what of the truth met no row.

Shape legend: B rows of one batch, C labels.
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from zsic.core.errors import SpecError
from zsic.evaluate.truth import Truth, show_key
from zsic.evaluate.vocabulary import Ids, TrueLabels, Vocabulary

_N_NAMED = 10
"""How many of the truth's keys without an image are named."""


class Matching:
    """Rows looked up in a truth so far."""

    def __init__(self, truth: Truth, vocabulary: Vocabulary) -> None:
        self._truth, self._vocabulary = truth, vocabulary
        self.true_labels = TrueLabels(vocabulary)
        self.rules: Counter[str] = Counter()
        """How many rows met their truth by which rule."""
        self.n_rows = 0
        self._sought = ""
        self._n_met = np.zeros(len(truth.keys), np.int64)
        """How many rows of the output each key of the truth met."""
        self._n_true_C = np.zeros(0, np.int64)

    @property
    def several(self) -> bool:
        """Whether images have several labels."""
        return self._truth.several

    @property
    def n_truth(self) -> int | None:
        """Rows of the truth's table; None where the truth is no table."""
        return len(self._n_met) or None

    @property
    def n_unmet(self) -> int:
        """Those of them that no row met."""
        return int((self._n_met == 0).sum())

    @property
    def n_shared(self) -> int:
        """Those of them that several rows met."""
        return int((self._n_met > 1).sum())

    @property
    def unmet(self) -> tuple[str, ...]:
        """The first of those that no row met."""
        keys = self._truth.keys
        return tuple(show_key(keys[i]) for i in np.flatnonzero(self._n_met == 0)[:_N_NAMED].tolist())

    def match(self, batch: pa.RecordBatch) -> Ids:
        """Give the place of each row's answer, for `true_labels`; -1 where the truth says nothing."""
        self.n_rows += len(batch)
        match = self._truth.match(batch)
        self._sought = self._sought or match.sought
        self.rules += match.rules
        self._n_met += np.bincount(match.keys_B[match.keys_B >= 0], minlength=len(self._n_met))
        self.true_labels.learn(self._truth.answers)
        return match.code_B

    def require_rows(self) -> None:
        """Raise `SpecError` when no row has met a truth."""
        if self.rules.total():
            return
        known = show_key(self._truth.keys[0]) if self._truth.keys else "nothing"
        raise SpecError(
            f"truth: none of the output's {self.n_rows} rows has one; looked for {self._sought!r} first, "
            f"and the truth has {known!r} first"
        )

    def count_true(self, label_N: Ids) -> None:
        """Count true labels of rows."""
        n_C = np.bincount(label_N, minlength=len(self._vocabulary))
        n_C[: len(self._n_true_C)] += self._n_true_C
        self._n_true_C = n_C

    def unknown(self) -> dict[str, int] | None:
        """Give the true labels that the label set does not have, with their rows, most first; None without a set."""
        if not self._vocabulary.is_known:
            return None
        n_known = self._vocabulary.n_known
        beyond = zip(self._vocabulary.names[n_known:], self._n_true_C[n_known:].tolist(), strict=False)
        return dict(Counter({name: n for name, n in beyond if n}).most_common())
