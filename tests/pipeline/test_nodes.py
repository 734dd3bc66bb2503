"""What only a cluster of several nodes shows: who does what where, who comes late, and who sees other disks."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.autoscaler import requested
from support.herd import MIB, WORKERS, Herd, psutil
from support.runs import LABELS, assert_same_rows, read_table, write_shard

from zsic.core.spec import JobSpec
from zsic.pipeline.run import run

pytestmark = [pytest.mark.ray, pytest.mark.variant]

N_SHARDS = 16
FLAGS = ("--block-rows", "20", "--batch-size", "20", "--no-progress-timeout", "60")
GPU_FLAGS = ("--num-gpus", "1", "--device", "cpu")
"""GPUs that are in Ray's books alone."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(N_SHARDS):
        write_shard(folder / f"{number:02}.tar", range(50 * number, 50 * number + 50))
    return f"{folder}/*.tar"


@contextlib.contextmanager
def driver(source: str, out: Path, *flags: str) -> Iterator["Driver"]:
    made = Driver(source, out, *flags)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


class Driver:
    """A run in a process of its own."""

    def __init__(self, source: str, out: Path, *flags: str) -> None:
        self.log = out.with_suffix(".log")
        command = [sys.executable, "-m", "zsic", "classify", source, "--labels", ",".join(LABELS), "--output", str(out)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, *FLAGS, *flags], stdout=log, stderr=log, start_new_session=True)

    def wait_for(self, what: Callable[[], Any], limit_s: float = 120) -> Any:
        deadline = time.monotonic() + limit_s
        while not (found := what()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found

    def end(self) -> int:
        return self.process.wait(180)


class Observer:
    """Which kinds of workers were seen on which node, looked for ten times a second."""

    def __init__(self, herd: Herd) -> None:
        self.seen: dict[int, Counter[str]] = {}
        self._herd = herd
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Observer":
        self._thread.start()
        return self

    def __exit__(self, *of_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def on(self, node: Any) -> Counter[str]:
        return self.seen.get(id(node), Counter())

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            for node in list(self._herd.nodes):
                for process in self._herd.processes_of(node):
                    with contextlib.suppress(psutil.Error, IndexError):
                        title = process.cmdline()[0]
                        for kind, start in WORKERS.items():
                            if title.startswith(start):
                                self.seen.setdefault(id(node), Counter())[kind] += 1


def test_each_stage_runs_where_it_belongs_and_rows_are_those_of_one_machine(
    shards: str, ray_spec_for: Callable[..., JobSpec], tmp_path: Path
) -> None:
    """A head without CPUs, a node of CPUs, one with a GPU, and one whose memory is too little for images."""
    out = tmp_path / "out"
    with Herd(0) as herd:
        cpu_node = herd.add_node(num_cpus=2)
        gpu_node = herd.add_node(num_cpus=1, num_gpus=1)
        small_node = herd.add_node(num_cpus=2, memory=100 * MIB)
        flags = ("--address", herd.address, *GPU_FLAGS, "--rows-per-part", "100")
        with Observer(herd) as observer, driver(shards, out, *flags) as running:
            # The encoder dies while decode tasks hold the CPUs of its node: it comes again all the same.
            running.wait_for(lambda: any(out.glob("*.parquet")))
            running.wait_for(lambda: herd.workers("encoder"))[0].kill()
            assert running.end() == 0, running.log.read_text()
    assert observer.on(cpu_node)["decode"]
    assert not observer.on(cpu_node)["encoder"]
    assert observer.on(gpu_node)["encoder"]
    assert not {"decode", "encoder"} & set(observer.on(small_node))

    run(ray_spec_for(shards, tmp_path / "alone", execution={"block_rows": 20}))
    assert_same_rows(read_table(out), read_table(tmp_path / "alone"))


def test_a_run_waits_for_the_nodes_that_it_needs(shards: str, tmp_path: Path) -> None:
    """An autoscaler would bring them."""
    out = tmp_path / "out"
    with Herd(0) as herd:
        flags = ("--address", herd.address, *GPU_FLAGS, "--encoders", "1")
        with driver(shards, out, *flags) as refused:
            assert refused.end() == 2
        assert "has no CPUs; start workers, or let an autoscaler bring them (execution.wait_for_nodes_s)" in (
            refused.log.read_text()
        )
        with driver(shards, out, *flags, "--wait-for-nodes", "1") as patient:
            assert patient.end() == 3
        assert "no node came in that time" in patient.log.read_text()
        with driver(shards, out, *flags, "--wait-for-nodes", "120") as running:
            running.wait_for(lambda: "waiting for nodes" in running.log.read_text())
            asked = running.wait_for(lambda: requested(herd.address))
            assert sorted(asked, key=str) == [{"CPU": 1.0}, {"CPU": 1.0}, {"GPU": 1.0}]
            herd.add_node(num_cpus=2)
            time.sleep(2)
            assert not any(out.glob("*.parquet")), "there is no GPU yet"
            herd.add_node(num_cpus=1, num_gpus=1)
            assert running.end() == 0, running.log.read_text()
        assert requested(herd.address) == [], "nothing is asked for any more"
    assert read_table(out, "id").num_rows == 50 * N_SHARDS


@pytest.mark.parametrize("hidden", ["source", "output"])
def test_a_node_that_does_not_see_the_disks(shards: str, tmp_path: Path, hidden: str) -> None:
    """Its mount is missing: without a word, images would be missing there, or parts lie where nobody looks."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own (unshare --mount)")
    out = tmp_path / "shared" / "out"
    out.parent.mkdir()
    blind = out.parent if hidden == "output" else Path(shards).parent
    with (
        Herd(0) as herd,
        blind_node(herd, blind),
        driver(shards, out, "--address", herd.address, "--wait-for-nodes", "60") as running,
    ):
        assert running.end() == 2, running.log.read_text()
    field = f"{hidden}.uri" + ("s" if hidden == "source" else "")
    assert f"zsic: {field}: " in running.log.read_text()
    assert not any(out.glob("*.parquet"))


@contextlib.contextmanager
def blind_node(herd: Herd, folder: Path) -> Iterator[None]:
    """A node for which this folder is empty."""
    ray = Path(sys.executable).parent / "ray"
    join = f"{ray} start --address={herd.address} --num-cpus=2 --object-store-memory={100 * MIB} --memory={4096 * MIB}"
    environment = {**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {folder} && exec {join} --block"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield
    finally:
        below = psutil.Process(node.pid).children(recursive=True)
        node.terminate()
        node.wait()
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.mark.faults
def test_a_cluster_that_grows(shards: str, tmp_path: Path) -> None:
    """A node that comes late has its share of decoding, and an encoder if the spec allows for more."""
    for number, shard in enumerate(sorted(Path(shards).parent.glob("*.tar"))):
        for copy in range(40):
            shutil.copy(shard, tmp_path / f"{copy:02}-{number:02}.tar")
    out = tmp_path / "out"
    with Herd(0) as herd:
        herd.add_node(num_cpus=2, num_gpus=1)
        flags = ("--address", herd.address, *GPU_FLAGS, "--encoders", "1", "--max-encoders", "2")
        flags += ("--rows-per-part", "500", "--encoder-threads", "1")
        with Observer(herd) as observer, driver(f"{tmp_path}/*.tar", out, *flags) as running:
            running.wait_for(lambda: any(out.glob("*.parquet")))
            late = herd.add_node(num_cpus=2, num_gpus=1)
            running.wait_for(lambda: observer.on(late)["decode"] and observer.on(late)["encoder"])
            assert running.end() == 0, running.log.read_text()
    assert read_table(out, "id").num_rows == 40 * 50 * N_SHARDS
