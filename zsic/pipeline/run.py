"""The main job from a spec to a published table; run again, it resumes or takes up what is new."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from zsic.core.errors import IncompleteError, StoreError
from zsic.core.spec import JobSpec
from zsic.pipeline.agreement import Agreement, check_agreement
from zsic.pipeline.guard import Guard, check_failures
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.summary import RunSummary, record_summary
from zsic.pipeline.watch import Clock, Progress, Watch
from zsic.storage.output import Work
from zsic.storage.plan import Plan
from zsic.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from zsic.pipeline.execute import ExecutionResult


def run(spec: JobSpec, watch: Watch | None = None) -> RunSummary:
    """Classify what the output does not hold yet: sources that are new, changed, or worth another try.

    Raises a `ZsicError`; after `IncompleteError` the same call resumes.
    """
    watch = watch or Watch()
    clock = Clock()
    watch.on_step("reading labels and model")
    job = prepare(spec)
    owner = job.output.check(job.fields)
    clock.lap("prepare")

    watch.on_step("listing the source")
    listing = job.listing
    agreement: Agreement | None = None
    if spec.model.quantize is not None and job.output.read_job() is None:
        watch.on_step("comparing int8 with float32")
        agreement = check_agreement(job, listing)
        clock.lap("compare")
        watch.on_step("listing the source")
    work = job.begin(listing, watch.on_step)
    clock.lap("list")
    if work.plan is None or work.lease is None:
        return _nothing_to_do(job, owner, clock)

    try:
        with Guard(work.lease, spec.execution) as guard:
            snapshot, executed, n_rows_before = _finish(job, work.plan, owner, guard, watch, clock)
    except KeyboardInterrupt:
        stopped = IncompleteError(f"interrupted; what is in {job.output.store.uri} stays, and the same command resumes")
        _record_stop(job, work, owner, stopped, clock)
        raise stopped from None
    except IncompleteError as error:
        _record_stop(job, work, owner, error, clock)
        raise
    except StoreError as error:
        # The plan is there: whatever ails the store, there is something to resume.  Word of it would not get there.
        raise IncompleteError(f"{error}\nWhat is written stays; the same command resumes.") from error
    clock.lap("publish")
    summary = replace(_summarise(job, work, snapshot, executed, n_rows_before, clock), agreement=agreement)
    record_summary(job.output.store, summary, spec)
    return summary


def _finish(
    job: Job, plan: Plan, owner: str, guard: Guard, watch: Watch, clock: Clock
) -> tuple[Snapshot, "ExecutionResult | None", int]:
    """Classify what is left of a plan, and publish it.  Gives the rows, too, that were there before."""
    executed, n_rows_before = None, 0
    published = job.output.published(plan)
    if published is None:
        ledger = job.output.read_ledger(plan)
        n_rows_before = ledger.n_rows
        clock.lap("ledger")
        if not ledger.all_there:
            from zsic.pipeline.execute import execute  # what a run with nothing to do does without

            executed = execute(job, plan, ledger, guard, watch, clock)
            watch.on_step("recounting")
            ledger = job.output.read_ledger(plan)
        n_rows = sum(ledger.outcomes.values())
        check_failures(job.spec.execution.max_failures, n_rows, dict(ledger.outcomes))
        watch.on_step("publishing")
        published = job.output.publish(plan, owner, ledger)
    return published, executed, n_rows_before


def _summarise(
    job: Job, work: Work, snapshot: Snapshot, executed: "ExecutionResult | None", n_rows_before: int, clock: Clock
) -> RunSummary:
    plan, increment = work.plan, snapshot.increment
    progress = executed.progress if executed else Progress()
    assert plan is not None
    return RunSummary(
        output=job.output.store.uri,
        fingerprint=snapshot.fingerprint,
        state="complete",
        started=clock.started,
        resumed=work.resumed,
        n_sources=increment.n_sources,
        n_rows=increment.n_rows,
        n_rows_before=n_rows_before,
        n_rows_in_all=snapshot.n_rows,
        n_redone=plan.n_redone,
        n_dropped=plan.n_dropped,
        n_superseded=increment.n_superseded,
        outcomes=increment.outcomes,
        seconds=clock.laps | progress.stage_s,
        has_delta_table=job.output.has_delta_table,
        images_per_s=(increment.n_rows - n_rows_before) / max(clock.laps.get("flow", 0.0), 1e-9),
        steady_images_per_s=executed.steady_images_per_s if executed else None,
        progress=progress,
        engine=executed.engine if executed else None,
        layout=executed.layout if executed else None,
        nodes=executed.nodes if executed else (),
    )


def _record_stop(job: Job, work: Work, owner: str, error: IncompleteError, clock: Clock) -> None:
    """Leave word of a run that did not finish."""
    summary = RunSummary(
        output=job.output.store.uri,
        fingerprint=owner,
        state="stopped",
        reason=str(error),
        started=clock.started,
        resumed=work.resumed,
        seconds=clock.laps,
    )
    with contextlib.suppress(StoreError):
        record_summary(job.output.store, summary, job.spec)


def _nothing_to_do(job: Job, owner: str, clock: Clock) -> RunSummary:
    snapshot = job.output.last_snapshot()
    return RunSummary(
        output=job.output.store.uri,
        fingerprint=owner,
        state="unchanged",
        started=clock.started,
        n_rows_in_all=snapshot.n_rows if snapshot else 0,
        has_delta_table=job.output.has_delta_table,
        seconds=clock.laps,
    )
