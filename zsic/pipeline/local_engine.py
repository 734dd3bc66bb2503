"""Execution in this process: the stages of a Ray job in one loop, for work that takes less time than starting Ray.

Images are decoded in forked child processes, so that one that kills its decoder costs itself alone; the next block is
decoded while the last one is encoded.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from queue import Full, Queue
from typing import TYPE_CHECKING

import pyarrow as pa

from zsic.core.cell import Cells
from zsic.core.errors import StoreError, ZsicError
from zsic.pipeline.capacity import Layout
from zsic.pipeline.execute import ExecutionResult, explain_stop, follow, part_metadata
from zsic.pipeline.guard import Guard, sigterm_interrupts
from zsic.pipeline.job import Job
from zsic.pipeline.nodes import this_machine
from zsic.pipeline.relabel import Relabel
from zsic.pipeline.reporter import LocalReporter
from zsic.pipeline.sight import look
from zsic.pipeline.stages import Decode, Encode
from zsic.pipeline.watch import Clock, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.pending import Pending
from zsic.storage.plan import Plan
from zsic.storage.slices import Slice, cut

if TYPE_CHECKING:
    from zsic.models.heads import Heads

PART_S = 60.0
"""Seconds of work that a part holds, unless the spec says how many rows."""
MAX_PART_ROWS = 200_000
_BLOCKS_AHEAD = 2
_POLL_S = 0.2


def execute_locally(
    job: Job, plan: Plan, ledger: Ledger, pending: Pending, guard: Guard, watch: Watch, clock: Clock
) -> ExecutionResult:
    """Run the stages over what is pending, in this process."""
    # Torch is imported before the decoders are forked, which then have it.
    with sigterm_interrupts(), _torch_threads_restored():
        try:
            return _execute(job, plan, ledger, pending, guard, watch, clock)
        except ZsicError:
            raise
        except Exception as error:  # whatever a stage raises, the parts that are written can be resumed
            raise explain_stop(error) from error


def _execute(
    job: Job, plan: Plan, ledger: Ledger, pending: Pending, guard: Guard, watch: Watch, clock: Clock
) -> ExecutionResult:
    watch.on_step("encoding the labels")
    heads = job.find_heads()
    clock.lap("labels")
    node = this_machine(job.spec.execution)
    layout = job.lay_out_locally(node, pending.n_images)
    slices = cut(
        job.output.store,
        plan,
        ledger,
        images_per_slice=layout.images_per_slice,
        shards_per_slice=job.shards_per_slice(layout),
    )
    reporter = LocalReporter()
    watch.on_start(pending)
    stall_timeout_s = job.spec.execution.no_progress_timeout_s
    with follow(reporter, guard, watch, stall_timeout_s=stall_timeout_s) as seen:
        parts = PartWriter(job, plan, part_metadata(job, heads), reporter)
        make_rows = _classify if job.origin is None else _relabel
        try:
            for table in make_rows(job, slices, heads, layout, reporter):
                parts.add(table)
        except BaseException:
            # An interrupted run keeps what is done.
            with contextlib.suppress(StoreError):
                parts.flush()
            raise
        parts.flush()
    clock.lap("flow")
    return ExecutionResult("local", reporter.read(), layout, (node,), seen.images_per_s)


def _classify(
    job: Job, slices: list[Slice], heads: "Heads", layout: Layout, reporter: LocalReporter
) -> Iterator[pa.Table]:
    """Yield classified blocks."""
    store, spec = job.output.store, job.spec
    decode = Decode(store, spec, job.geometry, layout.block_rows, layout.decode_threads, reporter, look(store, ()))
    timeout_s = spec.execution.decode_timeout_s
    with Cells(layout.decode_threads, job.geometry, spec.decode, timeout_s, fork=True) as cells:
        cells.start()
        encode = Encode(
            job.checkpoint,
            heads,
            spec,
            dtype=job.dtype,
            batch_size=layout.batch_size,
            n_threads=layout.encoder_threads,
            reporter=reporter,
        )
        for block in make_ahead(decode.decode(slices, cells.prepare)):
            yield encode(block)


def _relabel(
    job: Job, slices: list[Slice], heads: "Heads", layout: Layout, reporter: LocalReporter
) -> Iterator[pa.Table]:
    """Yield relabelled blocks."""
    assert job.origin is not None
    stage = Relabel(
        plan_store=job.output.store,
        origin_store=job.origin.store,
        heads=heads,
        columns=heads.columns,
        keep_columns=job.keep_columns,
        embedding_dim=job.origin.dim if job.spec.output.embeddings else None,
        block_rows=layout.block_rows,
        reporter=reporter,
        sight=look(job.output.store, ()),
    )
    return stage.relabel(slices)


class PartWriter:
    """Collects rows and writes them as parts: by number where the spec gives one, else a minute's work each."""

    def __init__(
        self,
        job: Job,
        plan: Plan,
        metadata: dict[str, object],
        reporter: LocalReporter,
        *,
        part_s: float = PART_S,
        max_rows: int = MAX_PART_ROWS,
    ) -> None:
        self._output = job.output
        self._plan = plan
        self._metadata = metadata
        self._reporter = reporter
        self._rows_per_part = job.spec.output.rows_per_part
        self._part_s = part_s
        self._max_rows = max_rows
        self._run = uuid.uuid4().hex[:12]
        self._n_parts = 0
        self._held: list[pa.Table] = []
        self._n_held = 0
        self._begun = time.monotonic()

    def add(self, table: pa.Table) -> None:
        """Hold the rows of a block; write a part when there are enough."""
        self._held.append(table)
        self._n_held += table.num_rows
        if self._rows_per_part is not None:
            is_full = self._n_held >= self._rows_per_part
        else:
            is_full = self._n_held >= self._max_rows or time.monotonic() - self._begun >= self._part_s
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._n_held:
            started = time.perf_counter()
            task = f"{self._run}-{self._n_parts:06d}"
            self._output.write_part(self._plan, pa.concat_tables(self._held), self._metadata, task)
            self._reporter.add_part(time.perf_counter() - started)
            self._n_parts += 1
        self._held, self._n_held, self._begun = [], 0, time.monotonic()


def make_ahead(blocks: Iterator[pa.Table], n: int = _BLOCKS_AHEAD) -> Iterator[pa.Table]:
    """Make up to `n` blocks ahead in a thread.

    The thread is not waited for when the caller ends early: it may hang in a store, and writes nothing.
    """
    made: Queue[pa.Table | BaseException | None] = Queue(n)
    ended = threading.Event()

    def put(item: pa.Table | BaseException | None) -> bool:
        while not ended.is_set():
            with contextlib.suppress(Full):
                made.put(item, timeout=_POLL_S)
                return True
        return False

    def make() -> None:
        try:
            for block in blocks:
                if not put(block):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001  raised by the thread that waits for the block
            put(error)

    threading.Thread(target=make, name="decode ahead", daemon=True).start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()


@contextlib.contextmanager
def _torch_threads_restored() -> Iterator[None]:
    """Leave torch's number of threads as it was: the process may be a notebook."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
