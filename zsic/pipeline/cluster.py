"""Connecting to Ray: a cluster of its own on this machine, or the one that was asked for."""

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from zsic.core.errors import CapacityError, IncompleteError
from zsic.core.spec import ExecutionSpec
from zsic.pipeline import environment
from zsic.pipeline.capacity import Layout, Node, least_resources
from zsic.pipeline.guard import sigterm_interrupts
from zsic.pipeline.last_word import last_word
from zsic.pipeline.nodes import available_cpus
from zsic.pipeline.scratch import scratch

_POLL_S = 1.0


@contextlib.contextmanager
def connect(execution: ExecutionSpec) -> Iterator[None]:
    """Hold a connection to Ray.

    Without an address, Ray is started on this machine, in a folder of its own that is removed at the end, without
    a dashboard; a bare `ray.init` would join whatever cluster it finds.
    """
    environment.set_defaults(environment.RAY)
    _quiet()
    with sigterm_interrupts() as interrupting:
        if execution.address is not None:
            try:
                _reach(execution.address)
                _init(address=execution.address)
            except (OSError, ValueError, RuntimeError) as error:
                raise CapacityError(f"execution.address {execution.address!r} cannot be reached: {error}") from error
            try:
                interrupting()
                with last_word():
                    yield
            finally:
                ray.shutdown()
            return
        with scratch() as folder:
            try:
                _init(
                    address="local",
                    num_cpus=execution.num_cpus or available_cpus(),
                    include_dashboard=False,
                    _temp_dir=str(folder),
                )
                interrupting()
                with last_word():
                    yield
            finally:
                ray.shutdown()


def _init(**arguments: Any) -> None:
    """Start or join Ray; a SIGTERM meanwhile interrupts.

    Ray handles that signal itself by then, with an exit, which is lost where it happens to be raised in a callback: so
    the interpreter is asked to note the signal, too.
    """
    heard, told = socket.socketpair()
    with heard, told:
        heard.setblocking(False)
        told.setblocking(False)
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.set_wakeup_fd(told.fileno()) if in_main else -1
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
        except SystemExit:
            raise KeyboardInterrupt from None
        finally:
            if in_main:
                signal.set_wakeup_fd(before)
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in heard.recv(4096):
                raise KeyboardInterrupt


def _reach(address: str) -> None:
    """Raise `OSError` if nobody listens at HOST:PORT: Ray would end the process after a minute, with exit code 1."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def read_nodes() -> list[Node]:
    """The machines of the cluster that is connected, those without a CPU left out."""
    nodes = [
        Node(
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
            memory_bytes=int(resources.get("memory", 0)),
            object_store_bytes=int(resources.get("object_store_memory", 0)),
        )
        for resources in (node["Resources"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
    ]
    nodes = [node for node in nodes if node.cpus]
    if not nodes:
        raise CapacityError(
            "the cluster has no CPUs; start workers, or let an autoscaler bring them (execution.wait_for_nodes_s)"
        )
    return nodes


def wait_for_nodes(execution: ExecutionSpec, lay_out: Callable[[], Layout], tell: Callable[[str], None]) -> Layout:
    """Lay the job out; if a cluster is too small, ask its autoscaler for more and wait, `wait_for_nodes_s` at most.

    Raises `CapacityError` if there is nothing to wait for, and `IncompleteError` if the nodes do not come.
    """
    try:
        return lay_out()
    except CapacityError as error:
        if execution.address is None or not execution.wait_for_nodes_s:
            raise
        tell(f"waiting for nodes, for {execution.wait_for_nodes_s:g} s at most: {error}")
    deadline = time.monotonic() + execution.wait_for_nodes_s
    request_resources(bundles=least_resources(execution))
    try:
        while True:
            time.sleep(_POLL_S)
            try:
                return lay_out()
            except CapacityError as error:
                if time.monotonic() > deadline:
                    raise IncompleteError(
                        f"{error}\nexecution.wait_for_nodes_s is {execution.wait_for_nodes_s:g}, and no node came in "
                        "that time that would have changed this; the same command tries again."
                    ) from error
    finally:
        # A request stands until the next one.  From here on Ray asks for what the job's tasks and actors need.
        request_resources(bundles=[])


def _quiet() -> None:
    """Leave it to zsic to say what went wrong: Ray logs the same trace three times before it raises."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Whatever `log_to_driver` says, of a node that dies its raylet's last words would go to stdout, a page of them.
    ray._private.worker._worker_logs_enabled = False
