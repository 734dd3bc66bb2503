"""What a run would do, without doing it: counts, layout and time."""

from collections.abc import Sequence
from dataclasses import dataclass

from zsic.core.errors import SpecError
from zsic.core.spec import ExecutionSpec, JobSpec
from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.execute import Engine, choose_engine
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.nodes import this_machine
from zsic.pipeline.prediction import Prediction, predict
from zsic.pipeline.sample import ImageCost, measure
from zsic.storage.pending import N_SAMPLED, Pending, PendingCount, count_pending
from zsic.storage.spread import Spread

N_MEASURED = 32
"""Images, where nobody says how many."""


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
    engine: Engine | None
    """What would execute it; None when nothing is pending."""
    layout: Layout | None
    """None when nothing is pending."""
    nodes: tuple[Node, ...]
    images_per_s: float
    rate_from: str
    """Where the rate comes from, in words."""
    cost: ImageCost | None
    """What an image takes, where it was measured."""
    prediction: Prediction | None
    """What that makes of the cluster."""

    @property
    def seconds(self) -> float:
        """Expected, while images flow; starting takes some seconds more."""
        return self.pending.n_images / self.images_per_s if self.images_per_s else 0.0


def preview(spec: JobSpec, *, n_sampled: int | None = None, nodes: Sequence[Node] | None = None) -> Preview:
    """List what is pending, lay the stages out, and estimate the time.  Writes nothing.

    The rate is measured on `n_sampled` images from all over the source.  Without a number it is that of the output's
    last run; else it is measured on a few where images are encoded on CPUs, and guessed where they are not.  `nodes`
    are those of a cluster that is not there.  Raises what `run` would raise before it starts.
    """
    if nodes is not None:
        for name in ("address", "num_cpus"):
            if getattr(spec.execution, name) is not None:
                raise SpecError(f"--cluster describes a cluster, and execution.{name} names one; leave one of them out")
    job = prepare(spec)
    job.output.check(job.fields)
    plan = job.output.open_plan()
    n_drawn = max(n_sampled or 0, N_SAMPLED)
    if plan is not None:
        ledger = job.output.read_ledger(plan)
        counted, n_rows = count_pending(job.output.store, plan, ledger, n_drawn), ledger.n_rows
        n_listed, n_redone, n_dropped = 0, plan.n_redone, plan.n_dropped
    else:
        changes = job.compare(job.listing)
        counted, n_rows = PendingCount(drawn=Spread(n_drawn)), 0
        for change in changes:
            counted.add(change.to_classify)
        n_listed, n_redone = changes.n_listed, changes.n_changed + changes.n_retried
        n_dropped = changes.n_dropped
    cost = _measure(job, counted, n_sampled, nodes)
    pending = job.estimate(counted, cost.shard_image_bytes if cost else None)
    engine: Engine | None = None
    layout, prediction, rate, rate_from = None, None, 0.0, ""
    if pending.n_images:
        # A cluster that is described is one of Ray.
        engine = choose_engine(job, pending) if nodes is None else "ray"
        nodes = _nodes(spec.execution) if nodes is None else tuple(nodes)
        if engine == "local":
            layout = job.lay_out_locally(nodes[0], pending.n_images)
        else:
            layout = job.lay_out(nodes, pending.n_images)
        prediction = predict(cost, layout, nodes) if cost else None
        rate, rate_from = _rate(job, layout, cost, prediction)
    return Preview(
        job=job,
        resumes=plan is not None,
        n_listed=n_listed,
        n_redone=n_redone,
        n_dropped=n_dropped,
        n_rows_done=n_rows,
        pending=pending,
        engine=engine,
        layout=layout,
        nodes=tuple(nodes or ()) if engine else (),
        images_per_s=rate,
        rate_from=rate_from,
        cost=cost,
        prediction=prediction,
    )


def _measure(job: Job, counted: PendingCount, n_sampled: int | None, nodes: Sequence[Node] | None) -> ImageCost | None:
    """What an image costs, if it is worth the time to find out."""
    if job.origin is not None or not counted.n_loose + counted.n_shards:
        return None
    # The last run was on the cluster that is there, and says more than a few images could.
    known = job.spec.execution.on_device == "cuda" or job.last_rate is not None
    if n_sampled is None and nodes is None and known:
        return None
    return measure(job, counted, n_sampled or N_MEASURED)


def _rate(job: Job, layout: Layout, cost: ImageCost | None, prediction: Prediction | None) -> tuple[float, str]:
    """Images/s to expect, and where that comes from."""
    if cost is not None and prediction is not None:
        guessed = cost.gpu_s and not cost.gpu_measured
        of_gpu = "; the GPU's rate is a guess, within a factor of four" if guessed else ""
        return prediction.images_per_s, f"{cost.n_images} images of the source, measured just now{of_gpu}"
    if job.last_rate is not None:
        return layout.images_per_s, "the last run into this output"
    return layout.images_per_s, "the model's size; within a factor of three"


def _nodes(execution: ExecutionSpec) -> tuple[Node, ...]:
    """The cluster that would be used: the one at the address, or this machine as Ray would see it."""
    if execution.address is not None:
        from zsic.pipeline.cluster import connect, read_nodes

        with connect(execution):
            return tuple(read_nodes())
    return (this_machine(execution),)
