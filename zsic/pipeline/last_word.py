"""The last word when the Ray that a run hangs on is gone.

Ray's core then ends the process with exit code 1 and says nothing: a minute after the head was lost, and at once when
it hears that this machine's raylet was.  Nothing in Python can catch that; it can only be noticed earlier.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import ray

from zsic.core.errors import IncompleteError

_EVERY_S = 0.5
_CONNECT_S = 2.0
_HEAD_TIMEOUT = "RAY_gcs_rpc_server_reconnect_timeout_s"


@contextlib.contextmanager
def last_word() -> Iterator[None]:
    """While a run is connected: end the process with exit code 3, and say why, before Ray ends it with 1."""
    context = ray.get_runtime_context()
    own = context.get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)  # type: ignore[no-untyped-call]
    head_host, _, head_port = context.gcs_address.rpartition(":")
    ended = threading.Event()
    thread = threading.Thread(
        target=watch,
        args=((head_host, int(head_port)), (node["NodeManagerAddress"], node["NodeManagerPort"]), ended, _end),
        name="last word",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def watch(head: tuple[str, int], raylet: tuple[str, int], ended: threading.Event, end: Callable[[str], None]) -> None:
    """Knock at both until the run has ended, or one of them is gone."""
    # A head that is restarted, as Ray allows it, has half of the time that Ray's own wait takes.
    patience_s = float(os.environ.get(_HEAD_TIMEOUT, "60")) / 2
    head_seen_at, n_refused = time.monotonic(), 0
    while not ended.wait(_EVERY_S):
        # Busy or not, the kernel answers for a process that lives: on one's own machine a refusal is certain.
        n_refused = n_refused + 1 if _knock(raylet) is ConnectionRefusedError else 0
        if n_refused == 2:
            end("the Ray node of this machine is gone")
            return
        if _knock(head) is None:
            head_seen_at = time.monotonic()
        elif time.monotonic() - head_seen_at > patience_s:
            end(f"the head of the Ray cluster has not answered for {patience_s:.0f} s")
            return


def _knock(address: tuple[str, int]) -> type[OSError] | None:
    """What kind of error a connection meets; None if it is accepted."""
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError as error:
        return type(error)
    return None


def _end(reason: str) -> None:
    sys.stderr.write(f"zsic: the pipeline stopped: {reason}\nzsic: What is written stays; the same command resumes.\n")
    sys.stderr.flush()
    os._exit(IncompleteError.exit_code)
