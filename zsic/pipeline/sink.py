"""Writing: Ray's last stage, one part a task."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from zsic.pipeline.sight import Sight
from zsic.storage.output import Output
from zsic.storage.plan import Plan

if TYPE_CHECKING:
    from zsic.pipeline.reporter import Reporter


class PartSink(Datasink[str]):
    """Ray's write stage: each write task makes one part, under a name that a second attempt of the task reuses."""

    def __init__(
        self, sight: Sight, plan: Plan, *, metadata: dict[str, object], rows_per_part: int, reporter: "Reporter"
    ) -> None:
        self._sight = sight
        self._store = sight.output
        self._plan = plan
        self._metadata = metadata
        self._rows_per_part = rows_per_part
        self._reporter = reporter

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_part

    def get_name(self) -> str:
        return "Parts"

    def write(self, blocks: Iterable[Block], ctx: Any) -> str:
        """Put the part of one task; returns its name."""
        self._sight.check()
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if not tables:
            return ""
        # Ray keeps both over a retry of the task, so the retry finds the name of the first attempt.
        task = f"{ctx.kwargs['write_uuid'][:12]}-{ctx.task_idx:06d}"
        started = time.perf_counter()
        name = Output(self._store).write_part(self._plan, pa.concat_tables(tables), self._metadata, task)
        self._reporter.add_part(time.perf_counter() - started)
        return name
