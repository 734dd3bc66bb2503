"""Execution on Ray: slices of a plan -> decode tasks -> encoder actors -> write tasks."""

import contextlib
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

import ray
import ray.exceptions
from ray.data import Dataset
from ray.data.exceptions import ExecutionTimeoutError, SystemException

from zsic.core.errors import CapacityError, IncompleteError, ZsicError
from zsic.models.heads import Heads
from zsic.pipeline.capacity import Layout
from zsic.pipeline.cluster import connect, read_nodes, wait_for_nodes
from zsic.pipeline.execute import PROBE_S, ExecutionResult, explain_stop, follow, part_metadata
from zsic.pipeline.graph import MAX_TASK_RETRIES, build, build_relabelling, set_context
from zsic.pipeline.guard import Guard
from zsic.pipeline.job import ROW_BYTES, Job
from zsic.pipeline.relabel import Relabel
from zsic.pipeline.sight import Sight, look
from zsic.pipeline.sink import PartSink
from zsic.pipeline.stages import Decode
from zsic.pipeline.tally import TallyReporter, start_reporter
from zsic.pipeline.watch import Clock, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.pending import Pending
from zsic.storage.plan import Plan
from zsic.storage.sample import Source
from zsic.storage.slices import Slice, cut

_log = logging.getLogger(__name__)

LONG_S = 300
"""A run that is expected to take longer is measured first, so that its parts hold what a minute brings."""


def execute_on_ray(
    job: Job,
    plan: Plan,
    ledger: Ledger,
    pending: Pending,
    witnesses: Iterable[Source],
    guard: Guard,
    watch: Watch,
    clock: Clock,
) -> ExecutionResult:
    """Run the pipeline over what is pending; `witnesses` are sources that every node must see."""
    execution = job.spec.execution
    sight = look(job.output.store, witnesses)
    watch.on_step("starting Ray" if execution.address is None else "connecting to Ray")
    with ThreadPoolExecutor(1) as background:
        # Starting Ray takes seconds and so does the text tower; neither needs the other.
        compiling = background.submit(job.find_heads)
        with connect(execution):
            clock.lap("ray")
            try:
                return _execute(job, plan, ledger, compiling, pending, sight, guard, watch, clock)
            except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
                raise _explain(error) from error


def _execute(
    job: Job,
    plan: Plan,
    ledger: Ledger,
    compiling: "Future[Heads]",
    pending: Pending,
    sight: Sight,
    guard: Guard,
    watch: Watch,
    clock: Clock,
) -> ExecutionResult:
    """Run the pipeline on the cluster that is connected."""
    watch.on_step("encoding the labels")
    heads = compiling.result()
    clock.lap("labels")
    reporter = start_reporter(job.output.store.uri)

    def lay_out(images_per_s: float | None = None) -> Layout:
        return wait_for_nodes(
            job.spec.execution,
            lambda: job.lay_out(read_nodes(), pending.n_images, images_per_s=images_per_s),
            watch.on_step,
        )

    layout, nodes = lay_out(), tuple(read_nodes())
    clock.lap("nodes")
    slices = cut(
        job.output.store,
        plan,
        ledger,
        images_per_slice=layout.images_per_slice,
        shards_per_slice=job.shards_per_slice(layout),
    )
    flow = _Flow(job, plan, heads, ray.put(heads), reporter, sight)
    reporter.expect(pending, layout.encoders)
    watch.on_start(pending)
    with follow(reporter, guard, watch, ignore=(ray.exceptions.RayError,)) as seen:
        first, rest = _split(job, slices, layout, pending.n_images)
        if first:
            flow.run(first, layout)
            try:
                layout = lay_out(seen.images_per_s)
            except CapacityError as error:
                # It did do for a beginning.
                raise IncompleteError(
                    f"the cluster has lost nodes: {error}\nWhat is written stays; the same command resumes."
                ) from error
        flow.run(rest, layout)
    clock.lap("flow")
    # The tally may be gone with its node; then what it reported last will do.
    with contextlib.suppress(ray.exceptions.RayError):
        seen.progress = reporter.read()
    return ExecutionResult("ray", seen.progress, layout, nodes, seen.images_per_s)


def _split(job: Job, slices: list[Slice], layout: Layout, n_images: int) -> tuple[list[Slice], list[Slice]]:
    """Cut off the slices to measure a long run with; none where it is short, or its rate is known from before."""
    if job.rate_is_known or n_images < LONG_S * layout.images_per_s:
        return [], slices
    n_probed = ceil(PROBE_S * layout.images_per_s * len(slices) / n_images)
    n_probed = max(n_probed, min(layout.decode_tasks, len(slices) // 10))
    return slices[:n_probed], slices[n_probed:]


@dataclass(frozen=True)
class _Flow:
    """The pipeline, but for what goes through it."""

    job: Job
    plan: Plan
    heads: Heads
    heads_ref: "ray.ObjectRef[Heads]"
    reporter: TallyReporter
    sight: Sight

    def run(self, slices: list[Slice], layout: Layout) -> None:
        """Classify some slices and write their parts."""
        _log.info("layout: %s", layout)
        dataset = self._classify(slices, layout) if self.job.origin is None else self._relabel(slices, layout)
        dataset.write_datasink(
            PartSink(
                self.sight,
                self.plan,
                metadata=part_metadata(self.job, self.heads),
                rows_per_part=layout.rows_per_part,
                reporter=self.reporter,
            ),
            concurrency=layout.write_tasks,
            ray_remote_args={
                "num_cpus": layout.write_cpus,
                "memory": layout.write_memory_bytes,
                "max_retries": MAX_TASK_RETRIES,
            },
        )

    def _classify(self, slices: list[Slice], layout: Layout) -> Dataset:
        job, store = self.job, self.job.output.store
        height, width = job.geometry.size
        set_context(layout, height * width * 3, job.spec.execution.no_progress_timeout_s)
        return build(
            slices,
            Decode(store, job.spec, job.geometry, layout.block_rows, layout.decode_threads, self.reporter, self.sight),
            {
                "checkpoint": job.checkpoint,
                "heads": self.heads_ref,
                "spec": job.spec,
                "dtype": job.dtype,
                "batch_size": layout.batch_size,
                "n_threads": layout.encoder_threads,
                "reporter": self.reporter,
            },
            layout,
        )

    def _relabel(self, slices: list[Slice], layout: Layout) -> Dataset:
        job = self.job
        assert job.origin is not None
        row_bytes = ROW_BYTES + (2 * job.origin.dim if job.spec.output.embeddings else 0)
        set_context(layout, row_bytes, job.spec.execution.no_progress_timeout_s)
        stage = Relabel(
            plan_store=job.output.store,
            origin_store=job.origin.store,
            heads=self.heads_ref,
            columns=self.heads.columns,
            keep_columns=job.keep_columns,
            embedding_dim=job.origin.dim if job.spec.output.embeddings else None,
            block_rows=layout.block_rows,
            reporter=self.reporter,
            sight=self.sight,
        )
        return build_relabelling(slices, stage, layout)


def _explain(error: Exception) -> ZsicError:
    """Explain what stopped the pipeline by the innermost cause that Ray reports."""
    innermost: BaseException = error
    while isinstance(cause := getattr(innermost, "cause", None) or innermost.__cause__, BaseException):
        if isinstance(cause, SystemException):  # Ray Data hangs an empty one behind errors that are not the user's
            break
        innermost = cause
    return explain_stop(innermost)
