"""`classify`, `run` and `plan`: progress while it runs, and what became of it."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from zsic.console.hush import hush
from zsic.console.words import count, duration, err, out, show_table, size
from zsic.core.spec import JobSpec, change_spec, make_spec
from zsic.core.terminal import printable
from zsic.pipeline.environment import PASSIVE, set_defaults
from zsic.pipeline.watch import STAGES, Progress, Watch
from zsic.storage.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zsic.pipeline.capacity import Layout, Node
    from zsic.pipeline.preview import Preview
    from zsic.pipeline.sample import ImageCost
    from zsic.pipeline.summary import RunSummary

LINE_EVERY_S = 10.0
"""Off a terminal: one line of progress so often."""


def run_job(spec: JobSpec) -> None:
    """Run the main job and print its summary."""
    with hush(), View("relabelling" if spec.source.format == "output" else "classifying") as view:
        view.on_step("loading")
        set_defaults(PASSIVE)  # before torch is imported
        from zsic.pipeline.run import run

        summary = run(spec, view)
    show_summary(summary)


def relabel(fields: dict[str, Any]) -> None:
    """Run the job that gives an output other labels; where no model is named, it is the one that made the output."""
    from zsic.storage.origin import Origin

    spec = make_spec(fields)
    if "name" not in fields.get("model", {}):
        origin = Origin.open(spec.source, spec.store)
        named = {"name": origin.model, "revision": origin.revision}
        spec = change_spec(spec, {"model": {**named, **fields.get("model", {})}})
    run_job(spec)


class View(Watch):
    """A run's watch: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, doing: str = "classifying") -> None:
        self._doing = doing
        self._pending: Pending | None = None
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._first: tuple[int, float] | None = None
        """Images done, and seconds since the start, when the first were told."""
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def on_step(self, text: str) -> None:
        self._close()
        err.print(f"{text} ...", style="dim")

    def on_start(self, pending: Pending) -> None:
        self._pending = pending
        self._started = self._told = time.monotonic()
        about = "" if pending.exact else "about "
        err.print(f"{self._doing} {about}{count(pending.n_images)} images, {size(pending.n_bytes)} ...", style="dim")
        if err.is_terminal:
            self._bar = Bar(BarColumn(bar_width=30), TextColumn("{task.description}"), console=err, transient=True)
            self._task = self._bar.add_task("starting workers", total=None)
            self._bar.start()

    def on_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        text = self._describe(progress, now - self._started)
        if self._bar is not None:
            done = progress.n_rows or progress.n_encoded
            self._bar.update(self._task, description=text, completed=done, total=self._total(progress))
        elif now - self._told >= LINE_EVERY_S:
            self._told = now
            err.print(text)

    def _total(self, progress: Progress) -> float | None:
        """Images in all, once some are decoded."""
        return None if self._pending is None or not progress.n_decoded else progress.expect(self._pending)

    def _describe(self, progress: Progress, seconds: float) -> str:
        done = max(progress.n_rows, progress.n_encoded)
        total = self._total(progress)
        if not done or total is None:
            return "starting workers" if not progress.n_decoded else "decoding"
        if self._first is None:
            self._first = (done, seconds)
        # Until workers stand nothing is done, and the rate since then is what the rest will have.
        since, n_since = seconds - self._first[1], done - self._first[0]
        rate = n_since / since if n_since else done / seconds
        about = "" if self._pending and self._pending.exact else "~"
        left = f"{duration((total - done) / rate)} left" if total > done else "nearly done"
        failed = f", {count(progress.n_failed)} failed" if progress.n_failed else ""
        return f"{count(done)} of {about}{count(total)} images, {count(rate)}/s, {left}{failed}"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_summary(summary: "RunSummary") -> None:
    """Print what a run did."""
    where = f"{printable(summary.output)}/*.parquet"
    seconds, progress = summary.seconds, summary.progress
    if summary.state == "unchanged":
        out.print(f"Nothing to do: {where} holds {count(summary.n_rows_in_all)} rows, all of the source.", markup=False)
    elif summary.n_rows_in_all == summary.n_rows:
        out.print(f"{count(summary.n_rows)} rows in {where}", markup=False)
    else:
        out.print(f"{count(summary.n_rows)} new rows, {count(summary.n_rows_in_all)} in all, in {where}", markup=False)
    if summary.n_rows_before:
        out.print(f"  resumed: {count(summary.n_rows_before)} rows were there before")
    if failed := summary.n_rows - summary.outcomes.get("ok", 0):
        reasons = ", ".join(f"{printable(name)} {count(n)}" for name, n in summary.outcomes.items() if name != "ok")
        out.print(f"  failed: {count(failed)} ({reasons}); each has its row, with the reason in `detail`", markup=False)
    if summary.n_redone:
        out.print(f"  changed or tried again: {count(summary.n_redone)} sources; their new rows replace the old")
    if summary.n_dropped:
        out.print(f"  pruned: {count(summary.n_dropped)} sources that are gone, and their rows")
    if summary.has_delta_table:
        out.print(f"  the Delta table {printable(summary.output)} has the same rows", markup=False)
    if summary.agreement is not None:
        out.print(f"  before it began: {summary.agreement}")
    if progress is not None and progress.n_decoded and "flow" in seconds:
        out.print(
            f"  {count(summary.images_per_s)} images/s over {duration(seconds['flow'])}; by one worker alone: "
            f"fetch {_rate(progress.n_decoded, seconds['fetch'])}, "
            + (f"decode {_rate(progress.n_decoded, seconds['decode'])}, " if seconds["decode"] else "")
            + f"encode {_rate(progress.n_encoded, seconds['encode'])}"
        )
    if summary.state == "complete":
        total = sum(value for name, value in seconds.items() if name not in STAGES)
        starting = total - seconds.get("flow", 0.0)
        out.print(f"  {duration(total)} in all, {duration(starting)} of it starting, listing and publishing")


def _rate(n: int, seconds: float) -> str:
    return f"{count(n / seconds)}/s" if seconds > 1e-3 else "-"


def show_plan(
    spec: JobSpec, *, n_sampled: int | None = None, cluster: str | None = None, price_per_hour: float | None = None
) -> None:
    """Print what a run would do."""
    from zsic.pipeline.nodes import parse_nodes
    from zsic.pipeline.preview import preview

    nodes = None if cluster is None else parse_nodes(cluster)
    show_preview(preview(spec, n_sampled=n_sampled, nodes=nodes), price_per_hour)


def show_preview(made: "Preview", price_per_hour: float | None = None) -> None:
    """Print a preview; with the price of the whole cluster, what it would cost."""
    from zsic.pipeline.prediction import cost_of

    job, layout, pending = made.job, made.layout, made.pending
    height, width = job.geometry.size
    about = "" if pending.exact else "about "
    out.print(f"output     {printable(job.output.store.uri)}", markup=False)
    out.print(f"model      {printable(job.checkpoint.name)}, {height} x {width} px, {job.dtype}", markup=False)
    for each, top_k in zip(job.sets, job.top_ks, strict=True):
        name = f" of {each.name}" if len(job.sets) > 1 else ""
        out.print(f"labels     {count(len(each.names))}{name}, top {top_k}", markup=False)
    if made.resumes:
        out.print(f"resumes    an open plan; {count(made.n_rows_done)} rows exist, the source is not listed again")
    else:
        out.print(f"listed     {count(made.n_listed)} objects")
    if made.n_redone:
        out.print(
            f"again      {count(made.n_redone)} of them, changed since or worth another try; new rows replace the old"
        )
    if made.n_dropped:
        out.print(f"gone       {count(made.n_dropped)} objects; their rows will be dropped (update.prune)")
    out.print(f"pending    {about}{count(pending.n_images)} images, {size(pending.n_bytes)}")
    if layout is None:
        out.print("nothing to do")
        return
    if made.engine == "local":
        out.print(f"engine     local: this process, {layout.decode_threads} decoders, {layout.encoder_threads} threads")
    else:
        _show_stages(made.nodes, layout)
    if made.cost is not None:
        _show_image_cost(made.cost)
    if made.prediction is not None:
        rates = ", ".join(f"{name} {count(rate)}" for name, rate in made.prediction.bounds.items())
        out.print(f"bound      {made.prediction.bound}; images/s that each would allow: {rates}")
    elif layout.encoders:
        out.print("bound      not measured; --sample 200 tells")
    out.print(
        f"time       {duration(made.seconds)} at {count(made.images_per_s)} images/s (from {made.rate_from}), "
        "and some seconds to start"
    )
    if price_per_hour is not None:
        money = cost_of(made.seconds, price_per_hour)
        per_million = 1e6 / made.images_per_s * price_per_hour / 3600
        out.print(
            f"cost       {money:,.2f} at {price_per_hour:,.2f} an hour for the cluster, its start counted; "
            f"{per_million:,.2f} a million images"
        )


def _show_stages(nodes: "Sequence[Node]", layout: "Layout") -> None:
    """Print what each stage would have on a Ray cluster."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    anywhere = f"any of {len(nodes)} nodes" if len(nodes) > 1 else "the only node"
    on_gpus = f"{sum(node.gpus > 0 for node in nodes)} nodes with GPUs" if len(nodes) > 1 else anywhere
    rows: list[tuple[str, ...]] = [
        (
            "decode" if layout.encoders else "relabel",
            f"up to {layout.decode_tasks} tasks",
            anywhere,
            f"{layout.decode_cpus:g}",
            "0",
            size(layout.decode_memory_bytes),
            f"{layout.decode_threads} threads, slices of {layout.images_per_slice} images",
        ),
        (
            "encode",
            f"{layout.encoders} actors",
            on_gpus if layout.encoder_gpus else anywhere,
            f"{layout.encoder_cpus:g}",
            f"{layout.encoder_gpus:g}",
            size(layout.encoder_memory_bytes),
            f"{layout.encoder_threads} threads, batches of {layout.batch_size or 'what the GPU likes'}, "
            f"blocks of {layout.block_rows}",
        ),
        (
            "write",
            f"up to {layout.write_tasks} tasks",
            anywhere,
            f"{layout.write_cpus:g}",
            "0",
            size(layout.write_memory_bytes),
            f"parts of {count(layout.rows_per_part)} rows",
        ),
    ]
    if not layout.encoders:
        rows = [row for row in rows if row[0] != "encode"]
    out.print(f"cluster    {len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs")
    show_table(["stage", "how many", "where", "CPUs", "GPUs", "memory", "each"], rows, right=(3, 4, 5))


def _show_image_cost(cost: "ImageCost") -> None:
    encode = f"encode {1e3 * cost.encode_cpu_s:.2f} CPU ms"
    if cost.gpu_s:
        encode = f"encode {1e3 * cost.gpu_s:.2f} GPU ms"
    out.print(
        f"an image   {size(cost.n_bytes)}: fetch {1e3 * cost.fetch_s:.2f} ms, {1e3 * cost.fetch_cpu_s:.2f} CPU ms; "
        f"decode {1e3 * cost.decode_cpu_s:.2f} CPU ms; {encode}"
    )
