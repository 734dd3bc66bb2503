"""The stage that answers rows which have their embedding: a slice of an output's parts to rows of another table.

Every row is kept, and a task that is run again gives the same blocks: their borders depend on positions only.

Shape legend: N rows of a part.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import INDEX_BITS, SOURCE_TOTAL, AnswerColumns, output_schema
from zsic.pipeline.sight import Sight
from zsic.pipeline.stages import fetch_heads
from zsic.storage.ledger import Runs
from zsic.storage.origin import read_rows
from zsic.storage.plan import read_sources
from zsic.storage.rows import make_rows
from zsic.storage.sample import End, Sample, Source
from zsic.storage.slices import Slice
from zsic.storage.store import Store

if TYPE_CHECKING:
    import ray

    from zsic.models.heads import Heads
    from zsic.pipeline.reporter import Reporter


@dataclass(frozen=True)
class Relabel:
    """Turn slices into blocks of at most `block_rows` rows: read a part, answer its rows, number them anew."""

    plan_store: Store
    origin_store: Store
    heads: "Heads | ray.ObjectRef[Heads]"
    columns: tuple[AnswerColumns, ...]
    keep_columns: tuple[str, ...]
    embedding_dim: int | None
    """None leaves the embeddings behind."""
    block_rows: int
    reporter: "Reporter"
    sight: Sight

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the blocks of each slice of a batch that Ray Data gives, in order."""
        import torch

        self.sight.check()
        torch.set_num_threads(1)  # there is a task for each core
        yield from self.relabel(Slice(**json.loads(item)) for item in batch["slice"])

    def relabel(self, slices: Iterable[Slice]) -> Iterator[pa.Table]:
        """Yield the blocks of each slice, in order."""
        heads = fetch_heads(self.heads)
        schema = output_schema(self.keep_columns, self.embedding_dim, self.columns).append(
            pa.field(SOURCE_TOTAL, pa.int32())
        )
        for piece in slices:
            table = read_sources(self.plan_store, piece.piece, piece.start, piece.stop)
            for ordinal, uri in zip(table["ordinal"].to_pylist(), table["uri"].to_pylist(), strict=True):
                yield from self._relabel(ordinal, Source(uri, "part"), piece, heads, schema)

    def _relabel(
        self, ordinal: int, source: Source, piece: Slice, heads: "Heads", schema: pa.Schema
    ) -> Iterator[pa.Table]:
        """Yield the rows of one part that are not there yet."""
        from zsic.models.relabel import relabel

        started = time.perf_counter()
        copied = [field.name for field in output_schema(self.keep_columns, 1, ()) if field.name != "id"]
        part = read_rows(self.origin_store, source.uri.rpartition("/")[2], copied)
        read_s = time.perf_counter() - started
        if part is None:
            yield self._failed(ordinal, source, piece, schema)
            return
        rows_N = _left(part.num_rows, piece.skip, piece.total)
        for begin in range(0, len(rows_N), self.block_rows):
            started = time.perf_counter()
            block_N = rows_N[begin : begin + self.block_rows]
            is_whole = block_N[-1] - block_N[0] == len(block_N) - 1
            block = part.slice(block_N[0], len(block_N)) if is_whole else part.take(pa.array(block_N))
            columns: dict[str, Any] = {name: block[name] for name in copied} | relabel(block, heads)
            columns["id"] = pa.array(block_N | ordinal << INDEX_BITS)
            is_last_N = block_N == part.num_rows - 1
            columns[SOURCE_TOTAL] = pa.array(np.full(len(block_N), part.num_rows, np.int32), mask=~is_last_N)
            self.reporter.add_relabelled(len(block_N), read_s, time.perf_counter() - started)
            self.reporter.add_outcomes(Counter(block["outcome"].to_pylist()))
            read_s = 0.0
            yield pa.table([columns[field.name] for field in schema], schema=schema)

    def _failed(self, ordinal: int, source: Source, piece: Slice, schema: pa.Schema) -> pa.Table:
        """A part that has gone since it was listed, as a row; the next run finds that it is not listed any more."""
        gone = Failure(Outcome.MISSING, "the part has gone: a later snapshot does without it")
        samples: list[Sample | End] = [Sample(0, None, None, gone), End(1, gone)]
        rows = list(make_rows(ordinal, source, iter(samples), piece.skip, piece.total))
        outcomes = [row.failure.outcome.value for row in rows if row.failure]
        columns: dict[str, list[Any]] = {
            "id": [row.id for row in rows],
            "uri": [row.uri for row in rows],
            "outcome": outcomes,
            "detail": [row.failure.detail for row in rows if row.failure],
            SOURCE_TOTAL: [row.source_total for row in rows],
        }
        self.reporter.add_outcomes(outcomes)
        return pa.table(
            [pa.array(columns.get(field.name, [None] * len(rows)), field.type) for field in schema], schema=schema
        )


def _left(n_rows: int, skip: Runs, total: int | None) -> npt.NDArray[np.int64]:
    """The positions of the rows that are not there yet; the last in any case, if nobody has told the total."""
    left_N = np.ones(n_rows, bool)
    for start, stop in skip:
        left_N[start:stop] = False
    if total is None:
        left_N[-1] = True
    found: npt.NDArray[np.int64] = np.flatnonzero(left_N)
    return found
