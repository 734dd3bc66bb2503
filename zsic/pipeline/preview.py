"""What a run would do, without doing it: counts, layout and time."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zsic.core.spec import ExecutionSpec, JobSpec
from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.cluster import available_cpus, connect, read_nodes
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.summary import last_rate
from zsic.storage.pending import Pending, PendingCount, count_pending
from zsic.storage.rows import read_sources_rows
from zsic.storage.sample import Source
from zsic.storage.sources import list_sources

N_SAMPLED = 32


@dataclass(frozen=True)
class Preview:
    """A run that has not happened."""

    job: Job
    resumes: bool
    """Whether a plan is open; then the source is not listed."""
    n_listed: int
    n_redone: int
    """Sources that changed since they were classified, or are worth another try."""
    n_dropped: int
    """Sources that are gone, with `update.prune`."""
    n_rows_done: int
    pending: Pending
    layout: Layout | None
    """None when nothing is pending."""
    nodes: tuple[Node, ...]
    images_per_s: float
    rate_from: str
    """Where the rate comes from, in words."""

    @property
    def seconds(self) -> float:
        """Expected, while images flow; starting takes some seconds more."""
        return self.pending.n_images / self.images_per_s if self.images_per_s else 0.0


def preview(spec: JobSpec) -> Preview:
    """List what is pending, lay the stages out, and estimate the time.  Writes nothing.

    The rate is that of the output's last run, else measured on the first images of the source when they are
    encoded on CPUs.  Raises what `run` would raise before it starts.
    """
    job = prepare(spec)
    job.output.check(job.fields)
    plan = job.output.open_plan()
    if plan is not None:
        ledger = job.output.read_ledger(plan)
        counted, n_rows = count_pending(job.output.store, plan, ledger), ledger.n_rows
        n_listed, n_redone, n_dropped = 0, plan.n_redone, plan.n_dropped
    else:
        listing = list_sources(spec.source, job.objects, excluding=job.output.store.uri)
        changes = job.output.compare(listing, spec.update)
        counted, n_rows = PendingCount(), 0
        for change in changes:
            counted.add(change.to_classify)
        n_listed, n_redone = changes.n_listed, changes.n_changed + changes.n_retried
        n_dropped = changes.n_dropped
    pending = counted.estimate(job.objects, spec)
    nodes: tuple[Node, ...] = ()
    layout, rate, rate_from = None, 0.0, ""
    if pending.n_images:
        nodes = tuple(_nodes(spec.execution))
        layout = job.lay_out(nodes, pending.n_images)
        rate, rate_from = _rate(job, layout, counted.first_sources, sum(node.cpus for node in nodes))
    return Preview(
        job, plan is not None, n_listed, n_redone, n_dropped, n_rows, pending, layout, nodes, rate, rate_from
    )


def _rate(job: Job, layout: Layout, sources: list[Source], cpus: float) -> tuple[float, str]:
    """Images/s to expect, and where that comes from."""
    if last_rate(job.output.store) is not None:
        return layout.images_per_s, "the last run into this output"
    measured = None if job.spec.execution.num_gpus else _measure(job, sources, cpus)
    if measured is not None:
        return measured, "the first images of the source, decoded and encoded just now"
    return layout.images_per_s, "the model's size; within a factor of three"


def _nodes(execution: ExecutionSpec) -> list[Node]:
    """The cluster that would be used: the one at the address, or this machine as Ray would see it."""
    if execution.address is not None:
        with connect(execution):
            return read_nodes()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        Node(
            cpus=execution.num_cpus or available_cpus(),
            gpus=_count_gpus() if execution.num_gpus else 0.0,
            memory_bytes=int(0.6 * memory),
            object_store_bytes=int(0.3 * memory),
        )
    ]


def _count_gpus() -> float:
    import torch

    return float(torch.cuda.device_count())


def _measure(job: Job, sources: list[Source], cpus: float) -> float | None:
    """Images/s that `cpus` cores would do, from the CPU time of some images in this process."""
    from zsic.core.decode import DecodeError
    from zsic.core.preprocess import prepare as decode
    from zsic.models.encoder import ImageEncoder

    height, width = job.geometry.size
    pixels_BHW3 = np.zeros((N_SAMPLED, height, width, 3), np.uint8)
    n = 0
    decode_s = 0.0
    for data in _sample(job, sources):
        started = time.process_time()
        try:
            decode(data, job.geometry, job.spec.decode, pixels_BHW3[n])
        except DecodeError:
            continue
        decode_s += time.process_time() - started
        n += 1
        if n == N_SAMPLED:
            break
    if not n:
        return None
    encoder = ImageEncoder(job.checkpoint, dtype=job.dtype)
    encoder.encode(pixels_BHW3[:n])  # the first pass pays for allocations
    started = time.process_time()
    encoder.encode(pixels_BHW3[:n])
    encode_s = time.process_time() - started
    return cpus * n / (decode_s + encode_s)


def _sample(job: Job, sources: list[Source]) -> Iterator[bytes]:
    for row in read_sources_rows(list(enumerate(sources)), job.objects, job.spec):
        if row.data is not None:
            yield row.data
