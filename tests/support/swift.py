"""A real object store for tests: one-node OpenStack Swift with its S3 API, on loopback, in one folder."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Self

_COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}/etc
devices = {folder}/node
mount_check = false
workers = 0
log_level = ERROR
log_address = /dev/null
fallocate_reserve = 0
disable_fallocate = true
servers_per_port = 0
"""
_STORAGE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_FILTERS = "catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth slo"
_SETTINGS = {
    "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1",
    "s3api": "use = egg:swift#s3api\nlocation = us-east-1\ncheck_bucket_owner = false",
    "tempauth": "use = egg:swift#tempauth\nuser_test_tester = testing .admin",
}
_PROXY = f"""
[pipeline:main]
pipeline = {_FILTERS} proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
""" + "\n".join(f"[filter:{name}]\n{_SETTINGS.get(name, f'use = egg:swift#{name}')}" for name in _FILTERS.split())
_SWIFT = """
[swift-hash]
swift_hash_path_prefix = test
swift_hash_path_suffix = test
[storage-policy:0]
name = gold
default = yes
"""


class Swift:
    """Account, container, object and proxy server: four processes, started on entry and ended by id on exit."""

    key = "test:tester"
    secret = "testing"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._open = ExitStack()
        builder = shutil.which("swift-ring-builder")
        assert builder is not None
        self._programs = Path(builder).parent

    def __enter__(self) -> Self:
        ports = dict(zip(("account", "container", "object", "proxy"), _free_ports(4), strict=True))
        self.url = f"http://127.0.0.1:{ports['proxy']}"
        etc = self._folder / "etc"
        etc.mkdir()
        (self._folder / "node" / "d1").mkdir(parents=True)
        (etc / "swift.conf").write_text(_SWIFT)
        user = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
        for kind, port in ports.items():
            common = _COMMON.format(port=port, user=user, folder=self._folder)
            rest = _PROXY if kind == "proxy" else _STORAGE.format(kind=kind)
            (etc / f"{kind}-server.conf").write_text(common + rest)
            if kind != "proxy":
                self._make_ring(kind, port)
        try:
            for kind in ports:
                self._start(kind)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._open.close()

    def _make_ring(self, kind: str, port: int) -> None:
        builder = [str(self._programs / "swift-ring-builder"), f"{kind}.builder"]
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
            # `rebalance` ends with 1 for the warning that one device is not many.
            done = subprocess.run([*builder, *step], cwd=self._folder / "etc", capture_output=True)
            assert done.returncode in (0, 1), done.stdout

    def _start(self, kind: str) -> None:
        log = self._open.enter_context((self._folder / f"{kind}.log").open("wb"))
        program = str(self._programs / f"swift-{kind}-server")
        config = str(self._folder / "etc" / f"{kind}-server.conf")
        self._processes.append(subprocess.Popen([program, config], stdout=log, stderr=log))

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            dead = [process for process in self._processes if process.poll() is not None]
            assert not dead, "".join(log.read_text() for log in self._folder.glob("*.log"))
            try:
                with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise TimeoutError("Swift did not start within a minute")


def _free_ports(n_ports: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n_ports)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
