"""A Ray cluster of several nodes on this machine, each process of which can be killed.

It ends only processes that it started: by id, never by name.  Nodes can be added from the main thread only (Ray
installs a signal handler), so the driver is a process of its own, and can be killed as well.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import ray  # noqa: F401  # it brings psutil

# isort: split
import psutil
from ray.cluster_utils import Cluster

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A dead node is noticed within some seconds instead of half a minute.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "6",
    # A head that is gone is given up within fifteen seconds instead of a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    # Workers are nice by default, and on a busy machine would never come to anything.
    "RAY_worker_niceness": "0",
    # Several nodes on one machine would each kill workers for the memory of all.
    "RAY_memory_monitor_refresh_ms": "0",
}
MIB = 2**20
WORKERS = {
    "decode": "ray::MapBatches(Decode)",
    "encoder": "ray::MapWorker(MapBatches(Encode))",
    "writer": "ray::Write",
    "helper": "ray::_",
    "idle": "ray::IDLE",
}
"""How the titles of workers begin, by kind.  Decode and write tasks share processes, idle ones among them."""


class Herd:
    """Nodes with logical CPUs of their own, and a head without any."""

    def __init__(self, n_nodes: int, *, cpus: int = 1, object_store_bytes: int = 100 * MIB) -> None:
        self._node = {"num_cpus": cpus, "object_store_memory": object_store_bytes, "memory": 4096 * MIB}
        # Ray puts sockets below this folder, and their paths may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="zc-", dir="/tmp"))
        (self.folder / "ray").mkdir()
        self._others = set(psutil.Process().children())
        """What this process had started before, be it another cluster: never ours to end."""
        self._processes: dict[psutil.Process, float] = {}
        """Every process that was ever seen below a raylet of ours, with the CPU seconds it used."""
        # Raylets and drivers inherit it.
        self._environment = mock.patch.dict(os.environ, ENVIRONMENT | {"RAY_TMPDIR": str(self.folder)})
        self._environment.start()
        with _own_sigterm():
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 0,
                    "include_dashboard": False,
                    "object_store_memory": 80 * MIB,
                    "temp_dir": str(self.folder),
                },
            )
        self.address: str = self._cluster.address
        self.has_head = True
        self.nodes: list[Any] = []
        for _ in range(n_nodes):
            self.add_node()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_node(self, **different: int) -> Any:
        """Start another node, perhaps one of another kind; in the main thread only."""
        for attempt in range(3):
            before = set(psutil.Process().children())
            try:
                with _own_sigterm():
                    self.nodes.append(self._cluster.add_node(**self._node | different))
                return self.nodes[-1]
            except Exception:  # Ray's own, when the machine is too busy for its half minute
                for process in set(psutil.Process().children()) - before:
                    process.kill()
                    process.wait()
                if attempt == 2:
                    raise
        raise AssertionError

    def processes_of(self, node: Any) -> list[psutil.Process]:
        """The processes below one node's raylet."""
        try:
            return list(psutil.Process(_raylet(node).pid).children())
        except psutil.Error:
            return []

    def workers(self, kind: str) -> list[psutil.Process]:
        """The workers of one kind that live below our raylets now."""
        found = []
        for node in [*self.nodes, self._cluster.head_node]:
            for process in self.processes_of(node):
                with contextlib.suppress(psutil.Error):
                    if process.cmdline()[:1] and process.cmdline()[0].startswith(WORKERS[kind]):
                        found.append(process)
        return found

    def kill_node(self, node: Any) -> None:
        """SIGKILL the raylet; its workers notice by themselves."""
        _raylet(node).send_signal(signal.SIGSTOP)  # it starts none that is not seen
        self.sample()
        self.nodes.remove(node)
        _raylet(node).kill()
        _raylet(node).wait()
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self, *names: str) -> None:
        """SIGKILL the GCS and the head's raylet, or one of them: no driver survives that, and no node joins again."""
        self.sample()
        self.has_head = False
        for name in names or ("gcs_server", "raylet"):
            for entry in self._cluster.head_node.all_processes.get(name, ()):
                entry.process.kill()
                entry.process.wait()

    def sample(self) -> None:
        """Remember the processes below our raylets, and what CPU they have used."""
        for child in set(psutil.Process().children()) - self._others:
            with contextlib.suppress(psutil.Error):
                for process in [child, *child.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self._processes[process] = times.user + times.system

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all that was ever started, as far as they were seen; drivers too."""
        return sum(list(self._processes.values()))

    def close(self) -> None:
        """End everything, stopped processes and orphans of killed raylets too, and remove the folder."""
        for node in self.nodes:
            _raylet(node).send_signal(signal.SIGSTOP)  # it starts none that is not seen
        self.sample()
        with contextlib.suppress(Exception):
            for node in [*self._cluster.worker_nodes, self._cluster.head_node]:
                self._cluster.remove_node(node, allow_graceful=False)
            self._cluster.shutdown()
        for process in list(self._processes):
            # psutil compares start times: a number that the system has given to somebody else is left alone.
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(self._processes), timeout=10)
        self._environment.stop()
        for _ in range(20):
            # A worker that was just about to die may still open a log.
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.1)

    def survivors(self) -> list[psutil.Process]:
        """What still runs of all that was ever seen."""
        deadline = time.monotonic() + 5
        while True:
            alive = [process for process in self._processes if _runs(process)]
            if not alive or time.monotonic() > deadline:
                return alive
            time.sleep(0.1)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's SIGTERM: Ray's would drain each node for half a minute."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raylet(node: Any) -> Any:
    return node.all_processes["raylet"][0].process


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
