"""Faults of one kind each, aimed: what the random ones meet too seldom."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from job import Job
from lake import Lake
from reader import read_published
from support.herd import MIB, Herd, psutil

pytestmark = [pytest.mark.ray, pytest.mark.faults]

NO_PROGRESS_S = 60
FLAGS = ("--rows-per-part", 40, "--block-rows", 20, "--decode-tasks", 2, "--no-progress-timeout", NO_PROGRESS_S)
ENDS_S = 3 * NO_PROGRESS_S
"""Within so long a run must end that cannot go on: its own limit, and what a busy machine adds."""

MakeJob = Callable[..., tuple[Job, Lake]]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    def make(n_shards: int = 12, images_per_shard: int = 100, out: Path | None = None) -> tuple[Job, Lake]:
        lake = Lake(tmp_path / "lake", Random(1), n_shards=n_shards, images_per_shard=images_per_shard, n_loose=8)
        return Job(tmp_path, lake, out or tmp_path / "out", *FLAGS), lake

    return make


@contextlib.contextmanager
def started(job: Job, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    driver = job.start(*arguments)
    try:
        yield driver
    finally:
        driver.send_signal(signal.SIGCONT)
        driver.kill()
        driver.wait()


def finish(job: Job, *arguments: object) -> None:
    """Run again until it is done, as a scheduler does; then everything must be exact."""
    for _ in range(3):
        code = job.run(*arguments)
        assert code in (0, 3), job.said()
        if code == 0:
            break
    assert code == 0, job.said()
    assert job.differences() == []


@pytest.mark.parametrize("kind", ["encoder", "other"])
def test_a_node_that_is_lost_for_good(make_job: MakeJob, kind: str) -> None:
    job, _ = make_job()
    with Herd(2) as herd:
        with started(job, "--address", herd.address) as driver:
            job.wait_for_parts(driver, 3)
            encoder = herd.workers("encoder")
            (node,) = [
                node for node in herd.nodes if bool(set(encoder) & set(herd.processes_of(node))) == (kind == "encoder")
            ]
            herd.kill_node(node)
            code = driver.wait(ENDS_S)
        assert code in (0, 3), job.said()
        finish(job, "--address", herd.address)


def test_all_nodes_are_lost(make_job: MakeJob) -> None:
    job, _ = make_job()
    with Herd(2) as herd:
        with started(job, "--address", herd.address) as driver:
            job.wait_for_parts(driver, 3)
            for node in list(herd.nodes):
                herd.kill_node(node)
            assert driver.wait(ENDS_S) == 3, job.said()
        assert job.run("--address", herd.address) == 2
        assert "has no CPUs" in job.said()
        herd.add_node()
        finish(job, "--address", herd.address)


@pytest.mark.parametrize("what", ["head", "gcs"])
def test_the_head_is_lost(make_job: MakeJob, what: str) -> None:
    """Ray itself would end the driver with exit code 1 and without a word."""
    job, _ = make_job()
    with Herd(1) as herd, started(job, "--address", herd.address) as driver:
        job.wait_for_parts(driver, 3)
        herd.kill_head(*(("gcs_server",) if what == "gcs" else ()))
        assert driver.wait(60) == 3, job.said()
    assert "is gone" in job.said() or "has not answered" in job.said()
    assert job.run("--address", herd.address) == 2
    assert "cannot be reached" in job.said()
    with Herd(1) as herd:
        finish(job, "--address", herd.address)


@pytest.mark.parametrize("rerun", [False, True])
def test_a_writer_that_finishes_after_others_did_its_work(make_job: MakeJob, rerun: bool) -> None:
    """Stopped between the draft and its name, its node dead; awake when another has written, or published, the rows."""
    job, lake = make_job()
    with Herd(2) as herd:
        with started(job, "--address", herd.address) as driver:
            job.wait_for_parts(driver, 2)
            node, writers = stop_a_writer(herd, job)
            herd.kill_node(node)
            herd.add_node()
            if rerun:
                driver.kill()
            driver.wait(600)
        for _ in range(3):
            if job.run("--address", herd.address) == 0:
                break
        published = read_published(job.out)
        assert published is not None
        assert lake.differences(published) == []
        for writer in writers:
            with contextlib.suppress(psutil.Error):
                writer.send_signal(signal.SIGCONT)
        psutil.wait_procs(writers, timeout=20)
        assert lake.differences(read_published(job.out)) == []
        finish(job, "--address", herd.address)


def stop_a_writer(herd: Herd, job: Job) -> tuple[object, list[psutil.Process]]:
    """Stop the write tasks of a node when a draft shows up; returns the node, and them."""
    drafts = job.out / "_zsic" / "draft"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(drafts.iterdir()) and (writers := herd.workers("writer")):
            for writer in writers:
                with contextlib.suppress(psutil.Error):
                    writer.send_signal(signal.SIGSTOP)
            for node in herd.nodes:
                if mine := [writer for writer in writers if writer in herd.processes_of(node)]:
                    for writer in set(writers) - set(mine):
                        writer.send_signal(signal.SIGCONT)
                    return node, mine
    raise AssertionError("no write task was met")


def test_a_driver_that_wakes_after_another_has_published(make_job: MakeJob) -> None:
    """What is published stays exact whatever the first driver adds; the next run mends what others see."""
    job, lake = make_job(n_shards=20)
    with started(job, "--num-cpus", 2) as first:
        job.wait_for_parts(first, 2)
        first.send_signal(signal.SIGSTOP)
        assert job.run("--num-cpus", 2) == 0, job.said()
        published = read_published(job.out)
        assert published is not None
        assert lake.differences(published) == []
        first.send_signal(signal.SIGCONT)
        assert first.wait(600) in (0, 3, 5)
        assert lake.differences(read_published(job.out)) == []
    finish(job, "--num-cpus", 2)


@pytest.mark.parametrize("moment", ["connecting", "starting", "flowing", "nearly done"])
def test_a_spot_machine_that_is_taken_back(make_job: MakeJob, moment: str) -> None:
    """SIGTERM, and SIGKILL half a minute later: it must have gone by itself, and lost nothing."""
    job, lake = make_job()
    with Herd(2) as herd:
        with started(job, "--address", herd.address) as driver:
            deadline = time.monotonic() + 120
            word = {"connecting": "connecting to Ray", "starting": "classifying"}.get(moment)
            while word and word not in job.said() and time.monotonic() < deadline:
                time.sleep(0.02)
            if not word:
                job.wait_for_parts(driver, 3 if moment == "flowing" else int(0.97 * len(lake.truths) / 40))
            driver.terminate()
            code = driver.wait(30)
        # Killed while it is not yet connecting, it has nothing to say.
        assert code in ((3, -signal.SIGTERM) if moment == "connecting" else (3, 0)), job.said()
        assert "Traceback" not in job.said()
        finish(job, "--address", herd.address)


def test_an_encoder_that_always_dies(make_job: MakeJob) -> None:
    job, _ = make_job()
    with Herd(1) as herd:
        with started(job, "--address", herd.address) as driver:
            deadline = time.monotonic() + 600
            n_killed = 0
            while driver.poll() is None and time.monotonic() < deadline:
                for encoder in herd.workers("encoder"):
                    with contextlib.suppress(psutil.Error):
                        encoder.kill()
                        n_killed += 1
                time.sleep(0.1)
            assert driver.poll() == 3, job.said()
        assert 3 <= n_killed <= 12
        finish(job, "--address", herd.address)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_disk(make_job: MakeJob, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(out)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        job, _ = make_job(out=out)
        assert job.run("--num-cpus", 2) in (3, 5), job.said()
        assert "space" in job.said()
        assert "Traceback" not in job.said()
        n_parts = job.n_parts()
        assert n_parts > 0
        assert job.run("--num-cpus", 2) in (3, 5), job.said()
        assert job.n_parts() >= n_parts
        subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
        finish(job, "--num-cpus", 2)
    finally:
        subprocess.run(["umount", str(out)], check=True)


HOG = """
import sys, time
import numpy, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

class Hog:
    def hold(self, n):
        self.held = ray.put(numpy.zeros(n, numpy.uint8))

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
hogs = [
    ray.remote(num_cpus=0, scheduling_strategy=On(node["NodeID"], soft=False))(Hog).remote()
    for node in ray.nodes()
    if node["Resources"].get("CPU")
]
ray.get([hog.hold.remote(int(sys.argv[2])) for hog in hogs])
print("held", flush=True)
time.sleep(3600)
"""


def test_an_object_store_that_is_nearly_full(make_job: MakeJob) -> None:
    """Somebody else holds most of it on each node: the run gets through, or ends, and never waits for ever."""
    job, _ = make_job()
    with Herd(2, object_store_bytes=80 * MIB) as herd:
        command = [sys.executable, "-c", HOG, herd.address, str(72 * MIB)]
        hog = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert hog.stdout is not None
            assert hog.stdout.readline() == "held\n"
            code = job.run("--block-rows", 200, "--address", herd.address)
            assert code in (0, 3), job.said()
        finally:
            hog.kill()
            hog.wait()
        finish(job, "--address", herd.address)
