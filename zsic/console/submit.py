"""`submit`: a job on a cluster, its log here."""

from typing import TYPE_CHECKING

from zsic.console.words import err, out
from zsic.core.errors import IncompleteError
from zsic.core.spec import JobSpec
from zsic.core.terminal import printable

if TYPE_CHECKING:
    from zsic.pipeline.submit import Cluster, Submission


def submit(spec: JobSpec, address: str, *, wait: bool) -> int:
    """Submit a job; with `wait`, show its log and return its exit code."""
    cluster = _connect(address)
    submission = cluster.submit(spec)
    err.print(f"submitted {submission.id} to {submission.address}", markup=False, style="dim")
    if not wait:
        out.print(submission.id, markup=False)
        return 0
    return _follow(cluster, submission)


def follow(spec: JobSpec, address: str) -> int:
    """Show the log of the latest job of this output, and return its exit code."""
    cluster = _connect(address)
    return _follow(cluster, cluster.find(spec.output.uri))


def stop(spec: JobSpec, address: str) -> None:
    """Stop the job of this output."""
    cluster = _connect(address)
    submission = cluster.find(spec.output.uri)
    stopped = cluster.stop(submission)
    what = "stopped; what is written stays, and submitting again resumes" if stopped else "had ended before"
    out.print(f"{submission.id} {what}", markup=False)


def _connect(address: str) -> "Cluster":
    from zsic.pipeline.submit import Cluster

    return Cluster(address)


def _follow(cluster: "Cluster", submission: "Submission") -> int:
    try:
        return cluster.follow(submission, lambda line: out.print(printable(line.expandtabs()), markup=False))
    except KeyboardInterrupt:
        raise IncompleteError(
            f"no longer following; {submission.id} goes on.  The same command with --follow shows its log again, with "
            "--stop it is stopped."
        ) from None
