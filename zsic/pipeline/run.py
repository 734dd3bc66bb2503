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

import zsic
from zsic.core.errors import IncompleteError, ZsicError
from zsic.core.fingerprint import fingerprint
from zsic.core.spec import JobSpec
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, compile_head
from zsic.models.weights import count_image_parameters
from zsic.pipeline.capacity import Workload, lay_out
from zsic.pipeline.cluster import connect, read_nodes
from zsic.pipeline.graph import MAX_TASK_RETRIES, build, set_context
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.progress import Reporter, start_reporter
from zsic.pipeline.sink import PartSink
from zsic.pipeline.stages import Decode
from zsic.pipeline.summary import RunSummary, last_rate, record_summary
from zsic.pipeline.watch import Progress, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.output import Increment
from zsic.storage.pending import Pending, count_pending
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
    owner = job.output.claim(job.fields)
    clock.lap("prepare")

    watch.on_step("listing the source")
    increment = job.output.next_plan(list_sources(spec.source, job.objects, excluding=job.output.store.uri))
    clock.lap("list")
    if increment is None:
        return RunSummary(job.output.store.uri, owner, "unchanged", seconds=clock.laps)
    ledger = job.output.read_ledger(increment.plan)
    n_rows_before = ledger.n_rows
    clock.lap("ledger")

    progress = Progress()
    try:
        if not ledger.whole:
            progress = _classify(job, increment, ledger, watch, clock)
        watch.on_step("recounting and publishing")
        snapshot = job.output.publish(increment.plan, owner)
    except KeyboardInterrupt:
        raise IncompleteError(
            f"interrupted; what is in {job.output.store.uri} stays, and the same command resumes"
        ) from None
    clock.lap("publish")

    summary = RunSummary(
        output=job.output.store.uri,
        fingerprint=owner,
        state="complete",
        resumed=increment.resumed,
        n_sources=snapshot.n_sources,
        n_rows=snapshot.n_rows,
        n_rows_before=n_rows_before,
        n_changed=increment.n_changed,
        outcomes=snapshot.outcomes,
        seconds=clock.laps | {"fetch": progress.fetch_s, "decode": progress.decode_s, "encode": progress.encode_s},
        images_per_s=(snapshot.n_rows - n_rows_before) / max(clock.laps.get("flow", 0.0), 1e-9),
        progress=progress,
    )
    record_summary(job.output.store, summary, spec)
    return summary


def _classify(job: Job, increment: Increment, ledger: Ledger, watch: Watch, clock: "_Clock") -> Progress:
    """Run the pipeline over what is pending; returns the sums of all workers."""
    spec = job.spec
    pending = count_pending(job.output.store, ledger).estimate(job.objects, spec)
    watch.on_step("starting Ray" if spec.execution.address is None else "connecting to Ray")
    with ThreadPoolExecutor(1) as background:
        # Starting Ray takes seconds and so does the text tower; neither needs the other.
        compiling = background.submit(lambda: compile_head(job.labels, TextEncoder(job.checkpoint)))
        with connect(spec.execution):
            return _flow(job, increment, ledger, compiling, pending, watch, clock)


def _flow(
    job: Job,
    increment: Increment,
    ledger: Ledger,
    compiling: "Future[Head]",
    pending: Pending,
    watch: Watch,
    clock: "_Clock",
) -> Progress:
    """Build the graph on the cluster that is connected, and let the images flow through it."""
    spec, output = job.spec, job.output
    nodes = read_nodes()
    clock.lap("ray")
    watch.on_step("encoding the labels")
    head = compiling.result()
    clock.lap("labels")
    layout = lay_out(
        spec.execution,
        spec.decode,
        nodes,
        measure_workload(job, pending.n_images),
        rows_per_part=spec.output.rows_per_part,
        images_per_s=last_rate(output.store),
    )
    _log.info("layout: %s", layout)
    slices = cut(output.store, ledger, images_per_slice=layout.images_per_slice)
    reporter = start_reporter()
    height, width = job.geometry.size
    set_context(layout, height * width * 3, spec.execution.no_progress_timeout_s)
    dataset = build(
        slices,
        Decode(output.store, spec, job.geometry, layout.block_rows, layout.decode_threads, reporter),
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
    sink = PartSink(
        output.store,
        increment.plan,
        metadata=_part_metadata(job, head),
        rows_per_part=layout.rows_per_part,
    )
    watch.on_start(pending)
    with _watching(reporter, watch):
        try:
            dataset.write_datasink(
                sink,
                ray_remote_args={"num_cpus": layout.write_cpus, "max_retries": MAX_TASK_RETRIES},
            )
        except ray.exceptions.RayError as error:
            raise _explain(error) from error
    clock.lap("flow")
    return reporter.read()


def measure_workload(job: Job, n_images: int) -> Workload:
    """What one image weighs, from the checkpoint's files; no weights are loaded."""
    height, width = job.geometry.size
    n_parameters = count_image_parameters(job.checkpoint)
    return Workload(height, width, weights_bytes=4 * n_parameters, n_images=n_images)


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


def _explain(error: ray.exceptions.RayError) -> ZsicError:
    """Say what stopped the pipeline: our own error from a worker as it is, all else as resumable."""
    innermost: BaseException = error
    while (cause := getattr(innermost, "cause", None)) is not None:
        innermost = cause
    if isinstance(innermost, ZsicError):
        return innermost
    # Ray's text is the trace of the worker; its last line says what happened.
    reason = str(innermost).strip().splitlines()[0] if str(innermost).strip() else type(innermost).__name__
    return IncompleteError(
        f"the pipeline stopped: {type(innermost).__name__}: {reason}\n"
        "What is written stays; the same command resumes.  ZSIC_TRACEBACK=1 shows where it happened."
    )


@contextlib.contextmanager
def _watching(reporter: Reporter, watch: Watch) -> Iterator[None]:
    """Tell the watch about the progress, once a second, from a thread of its own."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(1.0):
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                watch.on_progress(reporter.read())

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
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
