"""What became of the chosen rows, counted while they are written."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zsic.core.outcome import Failure

N_NAMED = 10
"""How many of those that were not to be had are named."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One chosen row."""

    id: int
    uri: str
    key: str | None
    label: str
    score: float


@dataclass
class Tally:
    """Counts, and the first of what was missing."""

    on_progress: Callable[[int, int], None] = lambda n_rows, n_bytes: None
    """Told after each row: rows so far, and bytes written."""
    n_written: int = 0
    n_before: int = 0
    """Rows that an earlier run had written."""
    n_bytes: int = 0
    """Of the images that were written."""
    failed: Counter[str] = field(default_factory=Counter)
    """Rows that were not to be had, by outcome."""
    named: list[str] = field(default_factory=list)

    def pass_over(self, rows: Iterable[Labelled], done_N: npt.NDArray[np.int64]) -> Iterator[Labelled]:
        """Give the rows whose ids are not among those that are done, which are sorted; count the others."""
        for row in rows:
            at = int(np.searchsorted(done_N, row.id))
            if at < len(done_N) and int(done_N[at]) == row.id:
                self.n_before += 1
            else:
                yield row

    def add(self, n_bytes: int) -> None:
        """Count an image that was written."""
        self.n_written += 1
        self.n_bytes += n_bytes
        self._tell()

    def fail(self, row: Labelled, failure: Failure) -> None:
        """Count a row that was not to be had."""
        self.failed[str(failure.outcome)] += 1
        if len(self.named) < N_NAMED:
            name = row.uri if row.key is None else f"{row.uri}: {row.key}"
            self.named.append(f"{name}: {failure.outcome}: {failure.detail}")
        self._tell()

    def _tell(self) -> None:
        self.on_progress(self.n_before + self.n_written + self.failed.total(), self.n_bytes)
