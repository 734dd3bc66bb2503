"""The images' way through Ray: from what is pending of a plan to its parts."""

import contextlib
import importlib.metadata
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
import ray.exceptions
from ray.data import Dataset
from ray.data.exceptions import ExecutionTimeoutError, SystemException

import zsic
from zsic.core.errors import CapacityError, IncompleteError, StoreError, ZsicError
from zsic.core.fingerprint import fingerprint
from zsic.models.heads import Heads
from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.cluster import connect, read_nodes, wait_for_nodes
from zsic.pipeline.graph import MAX_TASK_RETRIES, build, build_relabelling, set_context
from zsic.pipeline.guard import Guard
from zsic.pipeline.job import ROW_BYTES, Job
from zsic.pipeline.progress import Reporter, start_reporter
from zsic.pipeline.relabel import Relabel
from zsic.pipeline.sight import Sight, look
from zsic.pipeline.sink import PartSink
from zsic.pipeline.stages import Decode
from zsic.pipeline.watch import Clock, Progress, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.pending import Pending, count_pending
from zsic.storage.plan import Plan
from zsic.storage.slices import Slice, cut

_log = logging.getLogger(__name__)

LONG_S = 300
"""A run that is expected to take longer is measured first, so that its parts hold what a minute brings."""
_LETTERS = 50_000
"""So much of the prompts is told in the footer of each part."""
PROBE_S = 30
"""So much of it is done to measure it."""


@dataclass(frozen=True, slots=True)
class Flowed:
    """What the workers did, and on what."""

    progress: Progress
    layout: Layout
    nodes: tuple[Node, ...]
    """At the start; a cluster may grow and shrink."""
    steady_images_per_s: float | None
    """Since the workers stood; None if it was too short to tell."""


def classify(job: Job, plan: Plan, ledger: Ledger, guard: Guard, watch: Watch, clock: Clock) -> Flowed:
    """Run the pipeline over what is pending; returns the sums of all workers."""
    execution = job.spec.execution
    counted = count_pending(job.output.store, plan, ledger)
    pending = job.estimate(counted)
    # This machine alone sees what it sees.
    sight = look(job.output.store, counted.drawn.sources if execution.address is not None else ())
    watch.on_step("starting Ray" if execution.address is None else "connecting to Ray")
    with ThreadPoolExecutor(1) as background:
        # Starting Ray takes seconds and so does the text tower; neither needs the other.
        compiling = background.submit(job.find_heads)
        with connect(execution):
            clock.lap("ray")
            try:
                return _flow(job, plan, ledger, compiling, pending, sight, guard, watch, clock)
            except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
                raise _explain(error) from error


def _flow(
    job: Job,
    plan: Plan,
    ledger: Ledger,
    compiling: "Future[Heads]",
    pending: Pending,
    sight: Sight,
    guard: Guard,
    watch: Watch,
    clock: Clock,
) -> Flowed:
    """Let the images flow on the cluster that is connected."""
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
    shards_per_slice = 1 if job.origin is None else max(1, layout.images_per_slice // job.origin.rows_per_part)
    slices = cut(
        job.output.store,
        plan,
        ledger,
        images_per_slice=layout.images_per_slice,
        shards_per_slice=shards_per_slice,
    )
    flow = _Flow(job, plan, heads, ray.put(heads), reporter, sight)
    reporter.expect(pending, layout.encoders)
    watch.on_start(pending)
    with _watching(reporter, guard, watch) as seen:
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
    # The tally may be gone with its node; then what it told last will do.
    with contextlib.suppress(ray.exceptions.RayError):
        seen.progress = reporter.read()
    return Flowed(seen.progress, layout, nodes, seen.images_per_s)


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
    reporter: Reporter
    sight: Sight

    def run(self, slices: list[Slice], layout: Layout) -> None:
        """Classify some slices and write their parts."""
        _log.info("layout: %s", layout)
        dataset = self._classify(slices, layout) if self.job.origin is None else self._relabel(slices, layout)
        dataset.write_datasink(
            PartSink(
                self.sight,
                self.plan,
                metadata=_part_metadata(self.job, self.heads),
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


def _part_metadata(job: Job, heads: Heads) -> dict[str, object]:
    """What every part says of itself in its footer."""
    return {
        "version": zsic.__version__,
        "fingerprint": fingerprint(job.fields),
        "job": job.fields,
        "model": job.checkpoint.name,
        "revision": job.checkpoint.revision,
        "link": heads.heads[0].link,
        "labels": _by_set(heads, [list(head.labels) if len(head.labels) <= 1_000 else None for head in heads.heads]),
        "prompts": _by_set(heads, [_few(head.prompts) for head in heads.heads]),
        "ray": ray.__version__,
        "pillow": importlib.metadata.version("pillow"),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
    }


def _by_set(heads: Heads, entries: list[Any]) -> Any:
    """What there is of one label set; of several, by their names."""
    if len(entries) == 1:
        return entries[0]
    return {head.name: entry for head, entry in zip(heads.heads, entries, strict=True)}


def _few(prompts: tuple[tuple[str, ...], ...]) -> list[list[str]] | None:
    """The prompts, unless each part would be much larger for them."""
    n_letters = sum(len(text) for texts in prompts for text in texts)
    return [list(texts) for texts in prompts] if n_letters <= _LETTERS else None


def _explain(error: Exception) -> ZsicError:
    """Say what stopped the pipeline.

    What must be mended before a rerun keeps its kind (a model that is not on every node, say); everything else is
    resumable, a store that failed under way too.
    """
    innermost: BaseException = error
    while isinstance(cause := getattr(innermost, "cause", None) or innermost.__cause__, BaseException):
        if isinstance(cause, SystemException):  # Ray Data hangs an empty one behind errors that are not the user's
            break
        innermost = cause
    if isinstance(innermost, ZsicError) and not isinstance(innermost, StoreError):
        return innermost
    lines = str(innermost).strip().splitlines() or [""]
    what = lines[0] if isinstance(innermost, ZsicError) else f"{type(innermost).__name__}: {lines[0]}"
    return IncompleteError(
        f"the pipeline stopped: {what}\n"
        "What is written stays; the same command resumes.  ZSIC_TRACEBACK=1 shows where it happened."
    )


@dataclass
class _Seen:
    """What the tally told."""

    progress: Progress
    first: tuple[int, float] | None = None
    """Rows that were ready, and when, at the first sight of any."""
    last: tuple[int, float] | None = None

    @property
    def images_per_s(self) -> float | None:
        """The rate since the workers stand; None if it was too short to tell."""
        if self.first is None or self.last is None or self.last[1] - self.first[1] < PROBE_S / 6:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])


@contextlib.contextmanager
def _watching(reporter: Reporter, guard: Guard, watch: Watch) -> Iterator[_Seen]:
    """Tell the watch and the guard about the progress, once a second, from a thread of its own."""
    ended = threading.Event()
    seen = _Seen(Progress())

    def poll() -> None:
        while not ended.wait(1.0):
            with contextlib.suppress(ray.exceptions.RayError):
                progress = seen.progress = reporter.read()
                if progress.n_rows and (seen.last is None or progress.n_rows > seen.last[0]):
                    seen.last = (progress.n_rows, time.monotonic())
                    seen.first = seen.first or seen.last
                watch.on_progress(progress)
                guard.look_at(progress)

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
