"""A secret that the environment holds is found nowhere else, while a real job runs and after it."""

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from support.faultproxy import FaultProxy, Rule
from support.runs import LABELS, draw, write_shard

from zsic.cli import run_command
from zsic.core.errors import ZsicError
from zsic.core.spec import StoreSpec, make_spec
from zsic.models.checkpoint import resolve
from zsic.storage.objects import Objects
from zsic.storage.s3_store import S3Store
from zsic.storage.store import open_store
from zsic.storage.uri import canonical_uri
from zsic.storage.uri import resolve as resolve_uri

CANARY = "CANARYwJalrXUtnFEMIK7MDENG"
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"{CANARY}KEYID",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}SECRET",
    "AWS_SESSION_TOKEN": f"{CANARY}TOKEN",
}


class Scanner:
    """Looks for the canary wherever a Ray that zsic started leaves something, again and again."""

    def __init__(self, before: set[Path]) -> None:
        self.found: set[str] = set()
        self.scanned: set[str] = set()
        self.stored_bytes = 0
        self.in_environments = 0
        self._before = before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Scanner":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.3):
            for folder in rays() - self._before:
                for path in folder.rglob("*"):
                    if path.is_file():
                        self._look(str(path.relative_to(folder)), path)
            for process in Path("/proc").glob("[0-9]*"):
                self._look_at_process(process)

    def _look(self, name: str, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError:  # it has gone
            return
        self.scanned.add(name)
        if CANARY.encode() in data:
            self.found.add(name)

    def _look_at_process(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes()
            if CANARY.encode() in command:
                self.found.add(f"the command line {command!r}")
            if b"/tmp/zsic-" not in command:
                return
            self.in_environments += CANARY.encode() in (process / "environ").read_bytes()
            for handle in (process / "fd").iterdir():
                # The object store is a file without a name.
                if "plasma" in os.readlink(handle):
                    for data in read_written(handle):
                        self.stored_bytes = max(self.stored_bytes, len(data))
                        if CANARY.encode() in data:
                            self.found.add("the object store")
        except OSError:
            return


def read_written(path: Path) -> Iterator[bytes]:
    """The parts of a sparse file that were written."""
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield os.pread(file.fileno(), end - start, start)


def rays() -> set[Path]:
    return set(Path("/tmp").glob("zsic-*"))


def secret_environment() -> dict[str, str]:
    return {**os.environ, **SECRETS, "RAY_BACKEND_LOG_LEVEL": "debug"}


def fill(bucket: tuple[str, str], folder: Path, n: int) -> Any:
    """Put three shards of `n` images and a file that is none into a bucket."""
    endpoint, name = bucket
    client = boto3.client("s3", endpoint_url=endpoint)
    for shard in range(3):
        path = write_shard(folder / f"{shard}.tar", range(shard * n, shard * n + n))
        client.put_object(Bucket=name, Key=f"in/{shard}.tar", Body=path.read_bytes())
    client.put_object(Bucket=name, Key="in/broken.tar", Body=b"no tar")
    return client


def classify(bucket: tuple[str, str], engine: str) -> list[str]:
    endpoint, name = bucket
    command = ["classify", f"s3://{name}/in/", "--labels", ",".join(LABELS), "--output", f"s3://{name}/out"]
    return [*command, "--s3-endpoint-url", endpoint, "--num-cpus", "2", "--embeddings", "--engine", engine]


def assert_output_is_free(client: Any, bucket: str, folder: Path) -> None:
    """No object of the output holds the canary, and no part does once it is unpacked."""
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]]
    assert any("/plan/" in name for name in names)
    assert any("/runs/" in name for name in names)
    assert any(name.endswith(".parquet") for name in names)
    for name in names:
        data = client.get_object(Bucket=bucket, Key=name)["Body"].read()
        assert CANARY.encode() not in data, name
        if name.endswith(".parquet"):
            (folder / "part.parquet").write_bytes(data)
            table = pq.read_table(folder / "part.parquet")
            assert CANARY not in str(table.schema.metadata) + str(table.to_pylist())


def test_a_canary_secret_is_found_nowhere_after_a_local_run(
    s3_bucket: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = fill(s3_bucket, tmp_path, 8)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    endpoint, bucket = s3_bucket
    page, out = tmp_path / "report.html", [f"s3://{bucket}/out", "--s3-endpoint-url", endpoint]
    with caplog.at_level(logging.INFO):
        for arguments in (classify(s3_bucket, "local"), ["verify", *out], ["report", *out, "--output", str(page)]):
            assert run_command(arguments) == 0, capfd.readouterr().err
    assert CANARY not in "".join(capfd.readouterr()) + caplog.text
    assert "data:image" in page.read_text(), "the pictures were read again"
    files = [page, *(path for path in (tmp_path / "cache").rglob("*") if path.is_file())]
    assert len(files) > 1
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    assert_output_is_free(client, bucket, tmp_path)


@pytest.mark.ray
@pytest.mark.variant
def test_a_canary_secret_is_found_nowhere_while_ray_runs(s3_bucket: tuple[str, str], tmp_path: Path) -> None:
    client = fill(s3_bucket, tmp_path, 40)
    command = [sys.executable, "-m", "zsic", *classify(s3_bucket, "ray")]
    with Scanner(rays()) as scanner:
        done = subprocess.run(
            command, env=secret_environment(), capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert scanner.found == set()
    # And it has looked: at Ray's logs, at the store of its objects, and at processes that do have the secret.
    assert any(name.endswith("raylet.out") for name in scanner.scanned)
    assert any("worker-" in name for name in scanner.scanned)
    assert scanner.stored_bytes > 0
    assert scanner.in_environments > 0
    assert_output_is_free(client, s3_bucket[1], tmp_path)


def test_nothing_that_travels_holds_the_secret(s3_bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.cloudpickle

    from zsic.core.preprocess import Geometry
    from zsic.pipeline.job import prepare
    from zsic.pipeline.sight import Sight
    from zsic.pipeline.stages import Decode

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    endpoint, bucket = s3_bucket
    spec = make_spec(
        {
            "source": f"s3://{bucket}/in/",
            "labels": LABELS,
            "output": f"s3://{bucket}/out",
            "store": {"s3_endpoint_url": endpoint},
        }
    )
    store, objects, job = open_store(spec.output.uri, spec.store), Objects(spec.store), prepare(spec)
    # Used, so that connections stand.
    assert store.create("x", b"y")
    assert store.read("x") == b"y"
    assert objects.read(f"s3://{bucket}/out/x", max_bytes=9) == b"y"
    decode = Decode(store, spec, Geometry(224, "bicubic", (224, 224)), 8, 1, None, Sight(store, ()))  # type: ignore[arg-type]
    for travels in (spec, store, objects, decode, job.checkpoint, job.output.store):
        for dumps in (pickle.dumps, ray.cloudpickle.dumps):
            assert CANARY.encode() not in dumps(travels)
        assert CANARY not in repr(travels) + str(vars(travels) if hasattr(travels, "__dict__") else "")
    assert CANARY not in str(job.fields) + spec.model_dump_json()


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "InternalError"])
def test_errors_of_stores_do_not_repeat_the_secret(
    s3_bucket: tuple[str, str], fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    status = 500 if code == "InternalError" else 403
    fault_proxy.rules = [Rule(".", "error", status, code)]
    spec = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=1, timeout_s=2)
    store, objects, uri = S3Store(f"s3://{s3_bucket[1]}/out", spec), Objects(spec), f"s3://{s3_bucket[1]}/out"
    calls = [
        lambda: store.digest("x"),
        lambda: store.read("x"),
        lambda: list(store.list()),
        lambda: list(objects.list(uri)),
        lambda: objects.read(f"{uri}/x", max_bytes=9),
    ]
    for call in calls:
        with pytest.raises(Exception) as caught:  # noqa: PT011  errors of two layers
            call()
        error: BaseException | None = caught.value
        while error is not None:  # a traceback shows the causes as well
            assert CANARY not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__


URL = f"s3://{CANARY}:{CANARY}@bucket/x"


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: make_spec({"source": URL, "labels": ["a"], "output": "o"}), id="source"),
        pytest.param(lambda: make_spec({"source": ["a", URL], "labels": ["a"], "output": "o"}), id="one of sources"),
        pytest.param(lambda: make_spec({"source": "a", "labels": ["a"], "output": URL}), id="output"),
        pytest.param(
            lambda: make_spec({"source": "a", "labels": ["a"], "output": "o", "store": {"s3_endpoint_url": URL}}),
            id="endpoint",
        ),
        pytest.param(
            lambda: resolve(make_spec({"source": "a", "labels": ["a"], "output": "o", "model": URL}).model), id="model"
        ),
        pytest.param(lambda: canonical_uri(URL), id="a uri"),
        pytest.param(lambda: resolve_uri(URL, "s3://bucket"), id="an entry of a manifest"),
    ],
)
def test_credentials_in_urls_are_refused_and_not_repeated(call: object) -> None:
    with pytest.raises(ZsicError, match="holds credentials") as caught:
        call()  # type: ignore[operator]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("classify", URL, "--labels", "a,b", "--output", "OUT"),
        ("classify", "IMAGE", "--labels", "a,b", "--output", URL),
        ("classify", "IMAGE", "--labels", "a,b", "--output", "OUT", "--model", URL),
        ("classify", "IMAGE", "--labels", "a,b", "--output", "OUT", "--s3-endpoint-url", URL),
        ("classify", "MANIFEST", "--labels", "a,b", "--output", "OUT"),
        ("plan", URL, "--labels", "a,b", "--output", "OUT"),
        ("predict", "IMAGE", "--labels", "a,b", "--model", URL),
        ("verify", URL),
        ("verify", "s3://bucket/x", "--s3-endpoint-url", URL),
        ("evaluate", URL, "--truth", "folder"),
        ("evaluate", "OUT", "--truth", URL),
        ("labels", "check", "a,b", "--model", URL),
        ("model", "pull", URL, "--output", "OUT"),
    ],
    ids=" ".join,
)
def test_no_command_repeats_credentials(
    arguments: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(draw(1))
    (tmp_path / "m.csv").write_text(f"uri\n{URL}\n")
    places = {"OUT": tmp_path / "out", "IMAGE": tmp_path / "a.png", "MANIFEST": tmp_path / "m.csv"}
    assert run_command([str(places.get(each, each)) for each in arguments]) == 2
    told = "".join(capfd.readouterr())
    assert "credentials" in told
    assert CANARY not in told
    assert not any(CANARY.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
