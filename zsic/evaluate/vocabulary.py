"""Which written labels mean the same answer, and the number that stands for it.

Shape legend: B rows of one batch, A answers of a truth, N (row, label) pairs.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.wording import normalise

Ids = npt.NDArray[np.int64]

NOBODY = -1
"""In place of a label's number where there is no label."""


def fold(name: str) -> str:
    """Spell a label as it is compared: without case, and any run of white space as one space."""
    return " ".join(normalise(name).split()).casefold()


class Vocabulary:
    """Numbers for labels, in the order of the label set, then of their first appearance.

    An output's labels are taken as they are.  A true label is one of them if it is spelled like it; else if it
    differs in case and white space alone; else if it is one of its synonyms.  What is none of these is kept,
    under its own name.
    """

    def __init__(self, labels: Sequence[str] | None, synonyms: Mapping[str, str] | None = None) -> None:
        self.names: list[str] = []
        self.n_known = 0
        """The label set; numbers from here on are of labels that are not in it."""
        self.is_known = labels is not None
        self._by_name: dict[str, int] = {}
        self._by_fold: dict[str, int] = {}
        self._ambiguous: set[str] = set()
        self._only_true: set[int] = set()
        self._synonyms = {fold(other): name for other, name in (synonyms or {}).items()}
        for name in labels or ():
            self._answered(name)
        self.n_known = len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def answered(self, texts: pa.Array) -> Ids:
        """Give the numbers of labels that the output wrote; `NOBODY` for null.  Dictionary arrays are fastest."""
        if not pa.types.is_dictionary(texts.type):
            texts = pc.dictionary_encode(texts)
        ids_W = np.array([NOBODY if name is None else self._answered(name) for name in texts.dictionary.to_pylist()])
        places_N = pc.fill_null(texts.indices, len(ids_W)).to_numpy(zero_copy_only=False)
        ids_N: Ids = np.append(ids_W.astype(np.int64), NOBODY)[places_N]
        return ids_N

    def true(self, name: str) -> int:
        """Give the number of a label as the truth wrote it."""
        if (known := self._by_name.get(name)) is not None:
            return known
        folded = fold(name)
        if folded in self._by_fold and folded not in self._ambiguous:
            return self._by_fold[folded]
        if (label := self._synonyms.get(folded)) is not None and label != name:
            return self.true(label)
        self._only_true.add(len(self.names))
        return self._enter(name)

    def _answered(self, name: str) -> int:
        if (known := self._by_name.get(name)) is not None:
            self._only_true.discard(known)
            return known
        folded = fold(name)
        if (like := self._by_fold.get(folded)) in self._only_true and like is not None:
            # The truth came first, in a spelling of its own.
            self._only_true.discard(like)
            self.names[like] = name
            self._by_name[name] = like
            return like
        return self._enter(name)

    def _enter(self, name: str) -> int:
        number = len(self.names)
        self.names.append(name)
        self._by_name[name] = number
        if self._by_fold.setdefault(fold(name), number) != number:
            self._ambiguous.add(fold(name))
        return number


class TrueLabels:
    """The labels of each answer of a truth, as numbers; it grows as answers come."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.first_A: Ids = np.zeros(0, np.int64)
        """The first label of each answer: its only one, where no answer has several."""
        self._start_A: Ids = np.zeros(1, np.int64)
        self._label_N: Ids = np.zeros(0, np.int64)

    def learn(self, answers: Sequence[tuple[str, ...]]) -> None:
        """Take up the answers that are new; the list is only ever appended to."""
        n_before = len(self.first_A)
        if len(answers) == n_before:
            return
        new = [list(dict.fromkeys(map(self._vocabulary.true, names))) for names in answers[n_before:]]
        self.first_A = np.append(self.first_A, [labels[0] for labels in new])
        ends = self._start_A[-1] + np.cumsum([len(labels) for labels in new])
        self._start_A = np.append(self._start_A, ends)
        self._label_N = np.append(self._label_N, np.concatenate(new))

    def spread(self, code_B: Ids) -> tuple[Ids, Ids]:
        """Give all true labels of some rows: the place of the row, and the label, row by row."""
        n_B = self._start_A[code_B + 1] - self._start_A[code_B]
        row_N = np.repeat(np.arange(len(code_B)), n_B)
        within_N = np.arange(len(row_N)) - np.repeat(np.cumsum(n_B) - n_B, n_B)
        return row_N, self._label_N[np.repeat(self._start_A[code_B], n_B) + within_N]

    def hold(self, code_N: Ids, label_N: Ids) -> npt.NDArray[np.bool_]:
        """Whether each label is one of those of the answer beside it."""
        if len(self._label_N) == len(self.first_A):
            is_held_N: npt.NDArray[np.bool_] = self.first_A[code_N] == label_N
            return is_held_N
        n_A = np.diff(self._start_A)
        pairs = np.sort(np.repeat(np.arange(len(n_A)), n_A) << 32 | self._label_N)
        sought_N = code_N << 32 | np.maximum(label_N, 0)
        at_N = np.minimum(np.searchsorted(pairs, sought_N), len(pairs) - 1)
        is_held_N = (pairs[at_N] == sought_N) & (label_N >= 0)
        return is_held_N


def synonyms_of(labels: Iterable[object]) -> dict[str, str]:
    """Collect the other names of labels that have some (`name` and `synonyms`), folded, with the label they mean."""
    return {
        fold(other): str(getattr(label, "name"))  # noqa: B009
        for label in labels
        for other in getattr(label, "synonyms", ())
    }
