"""Rows put in order on the disk: any number of them in the memory of a million.

Parts hold rows in the order in which workers were done, so those of one shard may lie in many parts.  In the order of
where their images lie each shard is read once, from its first row to its last.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

RUN_ROWS = 500_000
"""Rows that are sorted in memory."""
BATCH_ROWS = 4_096
"""Rows of each run that are held while runs are merged."""
_ORDER = [("place", "ascending"), ("id", "ascending")]


class SortedRows:
    """Rows with the columns `place` and `id`, none twice, in the order of both; they lie in files below `folder`."""

    def __init__(self, folder: Path, *, run_rows: int = RUN_ROWS, batch_rows: int = BATCH_ROWS) -> None:
        self._folder = folder
        self._run_rows = run_rows
        self._batch_rows = batch_rows
        self._held: list[pa.RecordBatch] = []
        self._n_held = 0
        self._runs: list[Path] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows in, in any order."""
        self._held.append(batch)
        self._n_held += batch.num_rows
        if self._n_held >= self._run_rows:
            self._write()

    def read(self) -> Iterator[pa.Table]:
        """Give all rows in order, some at a time."""
        if self._held:
            self._write()
        yield from _merge([_read(path) for path in self._runs])

    def _write(self) -> None:
        table = pa.Table.from_batches(self._held).sort_by(_ORDER)
        self._held, self._n_held = [], 0
        path = self._folder / f"run-{len(self._runs):06d}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=self._batch_rows)
        self._runs.append(path)


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def _merge(runs: list[Iterator[pa.RecordBatch]]) -> Iterator[pa.Table]:
    """Give at a time what is not beyond the end of any run's batch at hand; so at least one batch goes."""
    heads = [(batch, run) for run in runs if (batch := next(run, None)) is not None]
    while heads:
        place, row_id = min((batch["place"][-1].as_py(), batch["id"][-1].as_py()) for batch, _ in heads)
        ready, left = [], []
        for batch, run in heads:
            place_N, id_N = batch["place"].to_numpy(), batch["id"].to_numpy()
            n = int(np.count_nonzero((place_N < place) | ((place_N == place) & (id_N <= row_id))))
            ready.append(batch.slice(0, n))
            rest: pa.RecordBatch | None = batch.slice(n)
            if not batch.num_rows - n:
                rest = next(run, None)
            if rest is not None:
                left.append((rest, run))
        heads = left
        yield pa.Table.from_batches(ready).sort_by(_ORDER)
