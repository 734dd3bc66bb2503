"""A run on a Ray cluster that goes on without this machine: submitted, followed and stopped over HTTP."""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from packaging.requirements import Requirement
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from zsic.core.errors import CapacityError, IncompleteError, SpecError
from zsic.core.spec import JobSpec
from zsic.pipeline.environment import PASSIVE
from zsic.pipeline.package import pack, read_requirements
from zsic.storage.uri import canonical_uri

ENVIRONMENT = {
    **PASSIVE,
    # What the driver was doing is written to the store within a second; Ray would give it three to end.
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}
POLL_S = 1.0
PATIENCE_S = 120.0
"""A head that does not answer for so long is given up; the job goes on all the same, if it lives."""
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job of one output on one cluster."""

    id: str
    output: str
    address: str


def name_jobs(output: str) -> str:
    """How the ids of all jobs of one output begin: its last name, to be recognised by, and a digest."""
    uri = canonical_uri(os.path.expanduser(output)).rstrip("/")
    word = re.sub(r"[^A-Za-z0-9]+", "-", uri.rpartition("/")[2])[:24].strip("-") or "output"
    return f"zsic-{word}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


class Cluster:
    """The jobs of one Ray cluster, by way of its head's dashboard."""

    def __init__(self, address: str) -> None:
        """Connect to `http://HEAD:8265`.

        Raises `SpecError` for what is no such address, and `CapacityError` if nobody answers there, the token is not
        its, or its Ray is not one that zsic runs on.
        """
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise SpecError(
                f"--address {address!r} is not that of a dashboard; it looks like http://HEAD:8265 (for a head that is "
                "not this machine, through an SSH tunnel: `ray dashboard cluster.yaml`)"
            )
        self.address = address.rstrip("/")
        # Ray would log what it sends, and from where; each of its modules has a level of its own.
        for module in (
            "dashboard.modules.dashboard_sdk",
            "dashboard.modules.job.sdk",
            "_private.runtime_env.packaging",
        ):
            logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
        with _explained(self.address), _alone():
            # First with a deadline: Ray's client would wait for as long as the network does.
            requests.get(f"{self.address}/api/version", timeout=10)
            self._client = JobSubmissionClient(self.address)
            version = str(self._client._do_request("GET", "/api/version").json()["ray_version"])
        wanted = next(
            required.specifier
            for required in map(Requirement, read_requirements()["packages"])
            if required.name == "ray"
        )
        if not wanted.contains(version, prereleases=True):
            raise CapacityError(f"the cluster at {self.address} runs Ray {version}; zsic needs {wanted}")

    def submit(self, spec: JobSpec) -> Submission:
        """Send the job of a spec.

        Its id is that of its output with a number, one more than the last: Ray takes no id twice, and so of two
        who submit at once one is refused.  Raises `IncompleteError` if a job of this output is on its way, and
        `SpecError` for what only this machine has.
        """
        name = name_jobs(spec.output.uri)
        with tempfile.TemporaryDirectory(prefix="zsic-submit-") as folder:
            entrypoint = pack(spec, Path(folder))
            with _explained(self.address), _alone():
                jobs = self._free_of(name, spec.output.uri)
                id = f"{name}-{1 + max(map(_number, jobs), default=0)}"
                try:
                    self._send(id, entrypoint, folder, spec.output.uri)
                except RuntimeError:
                    # Somebody was faster, or something else is wrong.
                    self._free_of(name, spec.output.uri)
                    raise
        return Submission(id, spec.output.uri, self.address)

    def _send(self, id: str, entrypoint: str, folder: str, output: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=id,
                    runtime_env={"working_dir": folder, "env_vars": ENVIRONMENT},
                    metadata={"output": output},
                )
            except RuntimeError as error:
                # A head takes some seconds more to be ready for jobs than to answer.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def find(self, output: str) -> Submission:
        """The latest job of an output.  Raises `SpecError` if this cluster has never had one."""
        with _explained(self.address), _alone():
            jobs = self._jobs_of(name_jobs(output))
        if not jobs:
            raise SpecError(f"the cluster at {self.address} knows no job of {output}")
        return Submission(str(jobs[-1].submission_id), output, self.address)

    def stop(self, submission: Submission) -> bool:
        """Stop a job, and wait until it has; False if it had ended before."""
        with _explained(self.address), _alone():
            if not self._client.stop_job(submission.id):
                return False
            while not self._client.get_job_status(submission.id).is_terminal():
                time.sleep(POLL_S)
        return True

    def follow(self, submission: Submission, write: Callable[[str], None]) -> int:
        """Hand each line of the job's log to `write` until it ends; returns its exit code.

        A connection that breaks is made again, and goes on behind the last line that was seen.  Raises
        `IncompleteError` if the job was stopped or lost, or the head is gone.
        """
        with _explained(self.address), _alone():
            asyncio.run(self._tail(submission.id, write))
            info = self._client.get_job_info(submission.id)
        if info.status == JobStatus.STOPPED:
            raise IncompleteError(f"{submission.id} was stopped; what is written stays, and submitting again resumes")
        if info.driver_exit_code is None or info.driver_exit_code < 0:
            raise IncompleteError(f"{submission.id} was lost: {info.message}\nSubmitting again resumes.")
        return int(info.driver_exit_code)

    async def _tail(self, id: str, write: Callable[[str], None]) -> None:
        n_seen, last_answer = 0, time.monotonic()
        while True:
            log = _Lines(n_seen, write)
            try:
                async for text in self._client.tail_job_logs(id):
                    log.add(text)
                    last_answer = time.monotonic()
                if self._client.get_job_status(id).is_terminal():
                    log.end()
                    return
                last_answer = time.monotonic()
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                if time.monotonic() - last_answer > PATIENCE_S:
                    raise IncompleteError(
                        f"{self.address} has not answered for {PATIENCE_S:.0f} s: {error}\nIf its head lives, "
                        f"the job {id} goes on; submitting again resumes it if not."
                    ) from error
            n_seen = max(n_seen, log.n_written)
            await asyncio.sleep(POLL_S)

    def _jobs_of(self, name: str) -> list[JobDetails]:
        """The jobs of one output, oldest first."""
        jobs = [job for job in self._client.list_jobs() if re.fullmatch(rf"{name}-\d+", job.submission_id or "")]
        return sorted(jobs, key=_number)

    def _free_of(self, name: str, output: str) -> list[JobDetails]:
        """The jobs that an output has had.  Raises `IncompleteError` if one has not ended."""
        jobs = self._jobs_of(name)
        for job in jobs:
            if not job.status.is_terminal():
                raise IncompleteError(
                    f"{job.submission_id} works on {output} already; follow it with --follow, or stop it with --stop"
                )
        return jobs


def _number(job: JobDetails) -> int:
    return int(str(job.submission_id).rpartition("-")[2])


class _Lines:
    """A log as it comes, in pieces, of which the first lines were seen before."""

    def __init__(self, n_seen: int, write: Callable[[str], None]) -> None:
        self._n_seen = n_seen
        self._write = write
        self._rest = ""
        self._n = 0

    @property
    def n_written(self) -> int:
        return self._n

    def add(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._put(line)

    def end(self) -> None:
        """Hear that nothing follows: a last line need not have an end."""
        if self._rest:
            self._put(self._rest)
        self._rest = ""

    def _put(self, line: str) -> None:
        self._n += 1
        if self._n > self._n_seen:
            self._write(line)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let the address that was given be the one that is used: Ray puts these variables above its argument."""
    held = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Say in a sentence what a cluster's dashboard has against us."""
    try:
        yield
    except AuthenticationError as error:
        raise CapacityError(
            f"the cluster at {address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH, or keep it in ~/.ray/auth_token"
        ) from error
    except (requests.RequestException, ConnectionError) as error:
        raise CapacityError(
            f"no Ray dashboard answers at {address}; start it (`ray start --head` with ray[default]), or open a tunnel "
            f"to it: {_first_line(error)}"
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise CapacityError(f"the cluster at {address} refuses: {_first_line(error)}") from error


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
