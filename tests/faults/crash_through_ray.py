"""The driver of a real job on Ray is killed at its n-th request to the output's store, for some n: nothing is lost.

    python tests/faults/crash_through_ray.py --points 20 --results FILE.jsonl

The output is an S3 bucket behind a proxy that kills when a request comes: before it is carried out, or after.  Then
the same command again, a shard more, and again.  Each point appends a line to the results, and the same command goes
on from there.  `tests/support/crashpoints.py` plays every point, without Ray.
"""

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

# Run as a script; what tests share lies in the folder above.
sys.path.insert(0, str(Path(__file__).parent.parent))

import boto3
from moto.server import ThreadedMotoServer
from support.faultproxy import FaultProxy, Rule
from support.herd import Herd
from support.runs import LABELS, write_shard

from zsic.core.spec import StoreSpec
from zsic.storage.snapshot import last_snapshot, read_published
from zsic.storage.store import open_store

N_SHARDS, N_IMAGES = 3, 40


class Points:
    """One source, one cluster and one store; an output of its own for each point."""

    def __init__(self, folder: Path, address: str, endpoint: str, proxy: FaultProxy) -> None:
        self._folder, self._address, self._endpoint, self._proxy = folder, address, endpoint, proxy
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="points")

    def _source(self, name: str) -> Path:
        source = self._folder / name
        source.mkdir()
        for shard in range(N_SHARDS):
            write_shard(source / f"{shard}.tar", range(shard * N_IMAGES, (shard + 1) * N_IMAGES))
        return source

    def _start(self, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "zsic", "classify", str(self._folder / name), "--labels", ",".join(LABELS)]
        command += ["--output", f"s3://points/{name}", "--s3-endpoint-url", self._proxy.url]
        command += ["--address", self._address, "--rows-per-part", "30", "--block-rows", "20"]
        with (self._folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)

    def _run(self, name: str) -> int:
        self._proxy.rules = []
        return self._start(name).wait(300)

    def count(self) -> int:
        """Requests of an undisturbed run."""
        self._source("counted")
        self._proxy.requests = []
        assert self._run("counted") == 0, (self._folder / "counted.log").read_text()
        return len(self._proxy.requests)

    def play(self, at: int, *, applied: bool) -> dict[str, object]:
        """Kill at one request; returns what became of it."""
        name, started = f"at-{at}-{'after' if applied else 'before'}", time.monotonic()
        source = self._source(name)
        struck: list[str] = []
        drivers: list[subprocess.Popen[str]] = []

        def kill() -> None:
            struck.append(self._proxy.requests[-1])
            drivers[0].send_signal(signal.SIGKILL)

        self._proxy.rules = [Rule(".", "call" if applied else "reset", times=1, after=at - 1, callback=kill)]
        drivers.append(self._start(name))
        code = drivers[0].wait(300)
        rerun = self._run(name)
        write_shard(source / "new.tar", range(900, 910))
        grown = self._run(name)
        return {
            "at": at,
            "applied": applied,
            "request": struck[0][:80] if struck else None,
            "codes": [code, rerun, grown],
            "verdict": self._verdict(name, source),
            "seconds": round(time.monotonic() - started, 1),
        }

    def _verdict(self, name: str, source: Path) -> str:
        store = open_store(f"s3://points/{name}", StoreSpec(s3_endpoint_url=self._endpoint))
        verified = subprocess.run(
            [sys.executable, "-m", "zsic", "verify", store.uri, "--s3-endpoint-url", self._endpoint],
            capture_output=True,
            text=True,
            check=False,
        )
        snapshot = last_snapshot(store)
        rows = [
            (Path(row["uri"]).name, row["key"])
            for part in (snapshot.parts if snapshot else ())
            for row in read_published(store, part, ["uri", "key"])[1].to_pylist()
        ]
        n = N_SHARDS * N_IMAGES + 10
        if verified.returncode or len(rows) != n or len(set(rows)) != n:
            return f"{len(rows)} rows, {len(set(rows))} distinct, {n} expected; {verified.stderr[-300:]}"
        return "exact"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; goes on from them")
    options = parser.parse_args()
    # Whoever ends it, it takes its cluster with it; a background job of a shell is deaf to Ctrl-C otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    address = urlsplit(endpoint)
    proxy = FaultProxy((address.hostname or "", address.port or 80))
    folder = Path(tempfile.mkdtemp(prefix="zsic-points-"))
    done = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    with Herd(1, cpus=3) as herd:
        points = Points(folder, herd.address, endpoint, proxy)
        n = points.count()
        print(f"{n} requests in an undisturbed run")
        for number in range(len(done), options.points):
            result = points.play(1 + number * (n - 1) // max(options.points - 1, 1), applied=number % 2 == 1)
            print(result, flush=True)
            with options.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
