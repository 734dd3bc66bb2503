"""Some sources of all that stream by: each has the same chance, however many there are."""

import numpy as np
import pyarrow as pa

from zsic.storage.sample import Source


class Spread:
    """Draws up to `n` sources; of the same stream always the same."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._random = np.random.default_rng(0)
        self._drawn: list[tuple[float, Source]] = []

    def add(self, sources: pa.Table | pa.RecordBatch) -> None:
        """Let some sources take part, given with all their columns."""
        # Each draws a number, and the least numbers of all stay: so only few rows are ever looked at.
        number_N = self._random.random(sources.num_rows)
        limit = self._drawn[-1][0] if len(self._drawn) == self._n else 1.0
        at = np.flatnonzero(number_N < limit)
        at = at[np.argsort(number_N[at])][: self._n]
        rows = sources.take(pa.array(at, pa.int64())).to_pylist()
        drawn = [(float(number), Source(**row)) for number, row in zip(number_N[at], rows, strict=True)]
        self._drawn = sorted([*self._drawn, *drawn], key=lambda each: each[0])[: self._n]

    @property
    def sources(self) -> list[Source]:
        """Those drawn so far, in no order that means something."""
        return [source for _, source in self._drawn]
