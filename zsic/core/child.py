"""A process of its own for what may die: started anew, without a terminal, open files or credentials of its parent.

Parent and child talk over a socket, in bytes and JSON: nothing that the child says is run.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

from zsic.core.errors import IncompleteError

READY = b"ready\n"
"""What a child sends first."""
GRACE_S = 5.0
"""So much later than its parent would have, a child that has none any more ends itself."""

_START_TIMEOUT_S = 120.0
_FORK_TIMEOUT_S = 20.0

# What a Python needs to start as its parent did, and to compute as it does.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "ATEN_CPU_CAPABILITY")
_ENVIRONMENT_PREFIXES = ("PYTHON", "LD_")


def start_child(module: str, orders: dict[str, Any]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Run a module in a new process, with `orders` and the number of its `socket` as JSON in its first argument.

    Never forked: the processes that decode have threads.  Raises `IncompleteError` if none can be started.
    """
    ours, its = socket.socketpair()
    ours.settimeout(_START_TIMEOUT_S)
    with its:
        child = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps({**orders, "socket": its.fileno()})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=(its.fileno(),),
            start_new_session=True,  # no terminal to write to, and no Ctrl-C from it
        )
    try:
        ready = ours.recv(len(READY)) == READY
    except OSError:
        ready = False
    if ready:
        return child, ours
    code = child.poll()
    end_child(child, ours)
    raise IncompleteError(
        f"no process to decode in can be started by {sys.executable} (exit code {code}); see to it that there "
        f"is memory for it and that `python -c 'import {module}'` works on this machine; the same "
        "command resumes"
    )


class Child(Protocol):
    """A child process, spawned or forked."""

    @property
    def pid(self) -> int | None: ...

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the child runs."""

    def wait(self, timeout: float | None = None) -> object:
        """Wait for the end.  Raises `subprocess.TimeoutExpired`."""

    def kill(self) -> None:
        """Send SIGKILL."""


def fork_child(
    live: Callable[[socket.socket], None], *, timeout_s: float = _FORK_TIMEOUT_S
) -> tuple[Child, socket.socket]:
    """Fork a child that runs `live` with its end of a socket, which must send `READY` first, and then ends.

    What is imported here need not be imported there: a fork takes milliseconds where a new Python with torch takes
    seconds.  As in the workers of torch's `DataLoader`, the child may use torch with one thread only.  It inherits
    the environment.  Raises `OSError` if the child is not ready in `timeout_s`: a lock that another thread held at the
    moment of the fork stays locked in the child.
    """
    ours, its = socket.socketpair()
    ours.settimeout(timeout_s)
    child = _Forked(live, its)
    its.close()
    try:
        if ours.recv(len(READY)) == READY:
            return child, ours
        raise ConnectionError("the forked process ended before it was ready")
    except OSError:
        end_child(child, ours)
        raise


class _Forked:
    """A forked child process, with what `Child` asks for."""

    def __init__(self, live: Callable[[socket.socket], None], its: socket.socket) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run_forked(live, its)

    def poll(self) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # a program that ignores SIGCHLD never learns the code
                pid, status = self.pid, 0
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("zsic", timeout or 0)
            time.sleep(0.005)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _run_forked(live: Callable[[socket.socket], None], its: socket.socket) -> NoReturn:
    """Leave the parent's terminal, signals and files, then live, and end without the parent's exit handlers."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        # The parent's end of this socket too: while any process holds it, its death does not close the socket.
        os.closerange(3, its.fileno())
        os.closerange(its.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        live(its)
        os._exit(0)
    except BaseException:  # noqa: BLE001  what the parent's code would do about it must not be done twice
        os._exit(1)


def end_child(child: Child, connection: socket.socket) -> None:
    """End a child, whatever it does."""
    connection.close()
    child.kill()
    child.wait()


def tell_death(code: int | None) -> str:
    """Why a child is gone, in words."""
    if code is None:
        return "the decoder answered nonsense"
    return f"the decoder was killed by signal {-code}" if code < 0 else f"the decoder ended with code {code}"


def settle() -> None:
    """Begin the life of a child: no core dumps, and the kernel may end it by its timer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


def limit_memory(more_bytes: int) -> None:
    """Forbid this process more address space than it has now and `more_bytes`."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = n_pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _environment() -> dict[str, str]:
    """What the child gets of the environment; what Ray put on the path of its workers is on its path too."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
