"""The main job from a spec to a published table; run again, it resumes or takes up what is new."""

import contextlib
import importlib.metadata
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import ray
import ray.exceptions
from ray.data.exceptions import ExecutionTimeoutError, SystemException

import zsic
from zsic.core.errors import IncompleteError, StoreError, ZsicError
from zsic.core.fingerprint import fingerprint
from zsic.core.spec import JobSpec
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, compile_head
from zsic.pipeline.cluster import connect, read_nodes
from zsic.pipeline.graph import MAX_TASK_RETRIES, build, set_context
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.progress import Reporter, start_reporter
from zsic.pipeline.sink import PartSink
from zsic.pipeline.stages import Decode
from zsic.pipeline.summary import RunSummary, record_summary
from zsic.pipeline.watch import Progress, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.pending import Pending, count_pending
from zsic.storage.plan import Plan
from zsic.storage.slices import cut
from zsic.storage.sources import list_sources

_log = logging.getLogger(__name__)


def run(spec: JobSpec, watch: Watch | None = None) -> RunSummary:
    """Classify every image of the source that the output does not hold yet.

    Raises a `ZsicError`; after `IncompleteError` the same call resumes.
    """
    watch = watch or Watch()
    clock = _Clock()
    watch.on_step("reading labels and model")
    job = prepare(spec)
    owner = job.output.check(job.fields)
    clock.lap("prepare")

    watch.on_step("listing the source")
    listing = list_sources(spec.source, job.objects, excluding=job.output.store.uri)
    increment = job.output.next_plan(listing, job.fields, spec.source.model_dump(mode="json"))
    clock.lap("list")

    plan, progress, n_rows_before = increment.plan, Progress(), 0
    if plan is not None:
        try:
            ledger = job.output.read_ledger(plan)
            n_rows_before = ledger.n_rows
            clock.lap("ledger")
            if not ledger.all_there:
                progress = _classify(job, plan, ledger, watch, clock)
            watch.on_step("recounting and publishing")
            job.output.publish(plan, owner)
        except KeyboardInterrupt:
            raise IncompleteError(
                f"interrupted; what is in {job.output.store.uri} stays, and the same command resumes"
            ) from None
        clock.lap("publish")

    snapshots = job.output.read_snapshots()
    published = snapshots[-1] if plan is not None else None
    n_rows = published.n_rows if published else 0
    summary = RunSummary(
        output=job.output.store.uri,
        fingerprint=owner,
        state="complete" if published else "unchanged",
        resumed=increment.resumed,
        n_sources=published.n_sources if published else 0,
        n_rows=n_rows,
        n_rows_before=n_rows_before,
        n_rows_in_all=sum(snapshot.n_rows for snapshot in snapshots),
        n_changed=increment.n_changed,
        outcomes=published.outcomes if published else {},
        seconds=clock.laps | {"fetch": progress.fetch_s, "decode": progress.decode_s, "encode": progress.encode_s},
        images_per_s=(n_rows - n_rows_before) / max(clock.laps.get("flow", 0.0), 1e-9),
        progress=progress,
    )
    if published:
        record_summary(job.output.store, summary, spec)
    return summary


def _classify(job: Job, plan: Plan, ledger: Ledger, watch: Watch, clock: "_Clock") -> Progress:
    """Run the pipeline over what is pending; returns the sums of all workers."""
    execution = job.spec.execution
    pending = count_pending(job.output.store, ledger).estimate(job.objects, job.spec)
    watch.on_step("starting Ray" if execution.address is None else "connecting to Ray")
    with ThreadPoolExecutor(1) as background:
        # Starting Ray takes seconds and so does the text tower; neither needs the other.
        compiling = background.submit(lambda: compile_head(job.labels, TextEncoder(job.checkpoint)))
        with connect(execution):
            clock.lap("ray")
            try:
                return _flow(job, plan, ledger, compiling, pending, watch, clock)
            except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
                raise _explain(error) from error


def _flow(
    job: Job,
    plan: Plan,
    ledger: Ledger,
    compiling: "Future[Head]",
    pending: Pending,
    watch: Watch,
    clock: "_Clock",
) -> Progress:
    """Build the graph on the cluster that is connected, and let the images flow through it."""
    spec, store = job.spec, job.output.store
    watch.on_step("encoding the labels")
    head = compiling.result()
    clock.lap("labels")
    layout = job.lay_out(read_nodes(), pending.n_images)
    _log.info("layout: %s", layout)
    slices = cut(store, ledger, images_per_slice=layout.images_per_slice)
    reporter = start_reporter()
    height, width = job.geometry.size
    set_context(layout, height * width * 3, spec.execution.no_progress_timeout_s)
    dataset = build(
        slices,
        Decode(store, spec, job.geometry, layout.block_rows, layout.decode_threads, reporter),
        {
            "checkpoint": job.checkpoint,
            "head": ray.put(head),
            "spec": spec,
            "dtype": job.dtype,
            "top_k": job.top_k,
            "batch_size": layout.batch_size,
            "n_threads": layout.encoder_threads,
            "reporter": reporter,
        },
        layout,
    )
    sink = PartSink(store, plan, metadata=_part_metadata(job, head), rows_per_part=layout.rows_per_part)
    watch.on_start(pending)
    with _watching(reporter, watch) as told:
        dataset.write_datasink(
            sink,
            ray_remote_args={
                "num_cpus": layout.write_cpus,
                "memory": layout.write_memory_bytes,
                "max_retries": MAX_TASK_RETRIES,
            },
        )
    clock.lap("flow")
    # The tally may be gone with its node; then what it told last will do.
    with contextlib.suppress(ray.exceptions.RayError):
        told.append(reporter.read())
    return told[-1] if told else Progress()


def _part_metadata(job: Job, head: Head) -> dict[str, object]:
    """What every part says of itself in its footer."""
    return {
        "version": zsic.__version__,
        "fingerprint": fingerprint(job.fields),
        "job": job.fields,
        "model": job.checkpoint.name,
        "revision": job.checkpoint.revision,
        "link": head.link,
        "labels": list(head.labels) if len(head.labels) <= 1_000 else None,
        "ray": ray.__version__,
        "pillow": importlib.metadata.version("pillow"),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
    }


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


@contextlib.contextmanager
def _watching(reporter: Reporter, watch: Watch) -> Iterator[list[Progress]]:
    """Tell the watch about the progress, once a second, from a thread of its own; yields where the last one is."""
    ended = threading.Event()
    told: list[Progress] = []

    def poll() -> None:
        while not ended.wait(1.0):
            with contextlib.suppress(ray.exceptions.RayError):
                told[:] = [reporter.read()]
                watch.on_progress(told[0])

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        thread.join()


class _Clock:
    """Wall seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Enter the seconds since the last lap under a name."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
