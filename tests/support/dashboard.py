"""The jobs API of a Ray head, where there is no head: each submitted job is a process on this machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from aiohttp import web

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dashboard:
    """An HTTP server that Ray's own client takes for the dashboard of a head.

    It keeps uploaded packages, runs the entry point of a job in its unpacked package, and sends its log.
    """

    def __init__(self, folder: Path, ray_address: str, *, token: str | None = None) -> None:
        """Serve from now on; jobs find the Ray cluster at `ray_address`, and who has not the token is refused."""
        self.followed = threading.Event()
        """Set when a client begins to read a log."""
        self._folder = folder
        self._ray_address = ray_address
        self._token = token
        self._jobs: dict[str, _Job] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(self._make_app(), shutdown_timeout=0)
        port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        self.address = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._jobs.values():
            job.signal(signal.SIGKILL)
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _make_app(self) -> web.Application:
        app = web.Application(client_max_size=2**28, middlewares=[self._check_token])
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/gcs/{name}", self._find_package),
                web.put("/api/packages/gcs/{name}", self._keep_package),
                web.get("/api/jobs/", self._list),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/{id}", self._show),
                web.post("/api/jobs/{id}/stop", self._stop),
                web.get("/api/jobs/{id}/logs/tail", self._tail),
            ]
        )
        return app

    async def _serve(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    @web.middleware
    async def _check_token(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})

    async def _find_package(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if (self._folder / request.match_info["name"]).exists() else 404)

    async def _keep_package(self, request: web.Request) -> web.Response:
        (self._folder / request.match_info["name"]).write_bytes(await request.read())
        return web.Response()

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([job.describe() for job in self._jobs.values()])

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        id = asked["submission_id"]
        if id in self._jobs:
            return web.Response(status=500, text=f"Job with submission_id {id} already exists.")
        package = self._folder / asked["runtime_env"]["working_dir"].removeprefix("gcs://")
        self._jobs[id] = _Job(asked, package, self._folder / id, self._ray_address)
        return web.json_response({"job_id": id, "submission_id": id})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._jobs[request.match_info["id"]].describe())

    async def _stop(self, request: web.Request) -> web.Response:
        return web.json_response({"stopped": self._jobs[request.match_info["id"]].stop()})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        job = self._jobs[request.match_info["id"]]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.followed.set()
        with job.log.open() as log:
            ended = False
            while not ended:
                ended = job.has_ended
                if text := log.read():
                    await socket.send_str(text)
                await asyncio.sleep(0.1)
        await socket.close()
        return socket


class _Job:
    """One submitted job."""

    def __init__(self, asked: dict[str, Any], package: Path, folder: Path, ray_address: str) -> None:
        shutil.unpack_archive(package, folder)
        self.log = folder.with_suffix(".log")
        self._asked = asked
        self._was_stopped = False
        # `python` is that of this environment, as on a machine that runs zsic; what is packed is what is imported.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "RAY_ADDRESS": ray_address}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", asked["entrypoint"]],
                cwd=folder,
                env=environment | asked["runtime_env"]["env_vars"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the job."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> bool:
        """Stop it; False if it had ended."""
        if self.has_ended:
            return False
        self._was_stopped = True
        self.signal(signal.SIGTERM)
        return True

    def describe(self) -> dict[str, Any]:
        code = self._process.poll()
        status = "RUNNING" if code is None else "FAILED" if code else "SUCCEEDED"
        return {
            "type": "SUBMISSION",
            "submission_id": self._asked["submission_id"],
            "status": "STOPPED" if code is not None and self._was_stopped else status,
            "entrypoint": self._asked["entrypoint"],
            "metadata": self._asked["metadata"],
            "driver_exit_code": code,
        }
