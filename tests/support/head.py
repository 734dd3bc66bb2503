"""The head of a Ray cluster as an administrator starts one: with a dashboard for jobs, and a token."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import requests


class Head:
    """`ray start --head` in a process of its own, on ports that are free."""

    def __init__(self, cpus: int = 2) -> None:
        self.token = secrets.token_hex(16)
        # Ray puts sockets below this folder, and their paths may have 107 characters at most.
        self._folder = tempfile.mkdtemp(prefix="head-", dir="/tmp")
        port, dashboard, agent, metrics, runtime_env = _free_ports(5)
        self.address = f"http://127.0.0.1:{dashboard}"
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}"]
        command += [f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--runtime-env-agent-port={runtime_env}", "--object-store-memory=200000000"]
        command += [f"--temp-dir={self._folder}", "--disable-usage-stats"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # `python` is that of this environment, as on a machine that runs zsic.
        environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self._log = Path(self._folder, "start.log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, env=environment | self.environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def environment(self) -> dict[str, str]:
        """What those who may use the cluster have in their environment."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                requests.get(f"{self.address}/api/version", timeout=1)
            except requests.RequestException:
                time.sleep(0.2)
            else:
                return self
        self.stop()
        raise TimeoutError(self._log.read_text())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        # Ray's daemons end with the process that blocks.
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
