"""Executing what is pending of a plan, on Ray or in this process, and what the two engines share.  Imports no Ray."""

import contextlib
import importlib.metadata
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import zsic
from zsic.core.errors import IncompleteError, StoreError, ZsicError
from zsic.core.fingerprint import fingerprint
from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.guard import Guard
from zsic.pipeline.job import Job
from zsic.pipeline.nodes import this_machine
from zsic.pipeline.reporter import Reporter
from zsic.pipeline.watch import Clock, Progress, Watch
from zsic.storage.ledger import Ledger
from zsic.storage.pending import Pending, count_pending
from zsic.storage.plan import Plan

if TYPE_CHECKING:
    from zsic.models.heads import Heads

Engine = Literal["ray", "local"]

LOCAL_S = 60.0
"""Seconds of work up to which `auto` does without Ray, whose start takes 12 to 15 s on 2 quiet cores.  On one machine
both engines do about as many images a second (2 cores, 3,000 photographs, start included: 16 s local, 28 s on Ray)."""
PROBE_S = 30
"""Seconds of a long run after which its rate is known well enough to size its parts."""
_MAX_PROMPT_LETTERS = 50_000
"""Letters of the prompts that the footer of each part holds at most."""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What the stages did, and on which machines."""

    engine: Engine
    progress: Progress
    layout: Layout
    nodes: tuple[Node, ...]
    """At the start; a cluster may grow and shrink."""
    steady_images_per_s: float | None
    """Rate once all workers had started; None if the run was too short to tell."""


def execute(job: Job, plan: Plan, ledger: Ledger, guard: Guard, watch: Watch, clock: Clock) -> ExecutionResult:
    """Classify (or relabel) what is pending of a plan and write its parts."""
    counted = count_pending(job.output.store, plan, ledger)
    pending = job.estimate(counted)
    if choose_engine(job, pending) == "local":
        from zsic.pipeline.local_engine import execute_locally

        return execute_locally(job, plan, ledger, pending, guard, watch, clock)
    from zsic.pipeline.ray_engine import execute_on_ray

    # Only a cluster has machines that may not see this one's disks.
    witnesses = counted.drawn.sources if job.spec.execution.address is not None else ()
    return execute_on_ray(job, plan, ledger, pending, witnesses, guard, watch, clock)


def choose_engine(job: Job, pending: Pending) -> Engine:
    """Return the engine of the spec; `auto` is `local` for about a minute of work on this machine, else `ray`."""
    execution = job.spec.execution
    if execution.engine != "auto":
        return execution.engine
    if execution.needs_ray:
        return "ray"
    rate = job.lay_out_locally(this_machine(execution), pending.n_images).images_per_s
    return "local" if pending.n_images < LOCAL_S * rate else "ray"


def part_metadata(job: Job, heads: "Heads") -> dict[str, object]:
    """Return what the footer of every part holds."""
    return {
        "version": zsic.__version__,
        "fingerprint": fingerprint(job.fields),
        "job": job.fields,
        "model": job.checkpoint.name,
        "revision": job.checkpoint.revision,
        "link": heads.heads[0].link,
        "labels": _by_set(heads, [list(head.labels) if len(head.labels) <= 1_000 else None for head in heads.heads]),
        "prompts": _by_set(heads, [_short_prompts(head.prompts) for head in heads.heads]),
        **{name: importlib.metadata.version(name) for name in ("ray", "pillow", "torch", "transformers")},
    }


def _by_set(heads: "Heads", entries: list[Any]) -> Any:
    """Return the entry of the only label set, or the entries of several by name."""
    if len(entries) == 1:
        return entries[0]
    return {head.name: entry for head, entry in zip(heads.heads, entries, strict=True)}


def _short_prompts(prompts: tuple[tuple[str, ...], ...]) -> list[list[str]] | None:
    """Return the prompts, or None if they would make each part much larger."""
    n_letters = sum(len(text) for texts in prompts for text in texts)
    return [list(texts) for texts in prompts] if n_letters <= _MAX_PROMPT_LETTERS else None


def explain_stop(error: BaseException) -> ZsicError:
    """Turn the innermost cause of a failed execution into an error for the user.

    What must be mended before a rerun keeps its kind (a model that is not on every node, for example); everything else
    is resumable, a store that failed during the run too.
    """
    if isinstance(error, ZsicError) and not isinstance(error, StoreError):
        return error
    lines = str(error).strip().splitlines() or [""]
    what = lines[0] if isinstance(error, ZsicError) else f"{type(error).__name__}: {lines[0]}"
    return IncompleteError(
        f"the pipeline stopped: {what}\n"
        "What is written stays; the same command resumes.  ZSIC_TRACEBACK=1 shows where it happened."
    )


@dataclass
class Seen:
    """Progress as it was last read."""

    progress: Progress
    first: tuple[int, float] | None = None
    """Rows ready, and the time, when any were first seen."""
    last: tuple[int, float] | None = None

    @property
    def images_per_s(self) -> float | None:
        """Rate since the workers started; None if the time was too short to tell."""
        if self.first is None or self.last is None or self.last[1] - self.first[1] < PROBE_S / 6:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])


@contextlib.contextmanager
def follow(
    reporter: Reporter,
    guard: Guard,
    watch: Watch,
    *,
    ignore: tuple[type[Exception], ...] = (),
    stall_timeout_s: float | None = None,
) -> Iterator[Seen]:
    """Read the progress once a second in a thread, and pass it to the watch and the guard.

    `ignore` are errors of reading that the next second may not have.  Without any progress for `stall_timeout_s` the
    run is stopped.
    """
    ended = threading.Event()
    seen = Seen(Progress())

    def poll() -> None:
        moved = time.monotonic()
        while not ended.wait(1.0):
            with contextlib.suppress(*ignore):
                before, progress = seen.progress, reporter.read()
                seen.progress = progress
                if progress.n_rows and (seen.last is None or progress.n_rows > seen.last[0]):
                    seen.last = (progress.n_rows, time.monotonic())
                    seen.first = seen.first or seen.last
                watch.on_progress(progress)
                guard.look_at(progress)
                if progress != before:
                    moved = time.monotonic()
                elif stall_timeout_s is not None and time.monotonic() - moved > stall_timeout_s:
                    guard.stop(
                        IncompleteError(
                            f"no image was finished for {stall_timeout_s:g} s (execution.no_progress_timeout_s)\n"
                            "What is written stays; the same command resumes."
                        )
                    )
                    return

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
