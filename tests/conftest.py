"""Fixtures that all tests share: S3 servers, a proxy that breaks things, and a small Ray cluster."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import hypothesis
import pytest
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

# Tests are no package; what they share lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from support.faultproxy import FaultProxy
from support.place import DISK_AND_S3, REAL_S3, Place
from support.swift import Swift

from zsic.core.spec import StoreSpec

# An example has no deadline: its time depends on how busy the machine is.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=40)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=400)

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked `variant`, and more examples of each law")
    parser.addoption("--faults", action="store_true", help="run the tests marked `faults`, which take hours")
    parser.addoption("--renew-golden", action="store_true", help="write the files in tests/golden/expected again")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored, and tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("thorough" if config.getoption("--all") else "quick")


# First, for pytest-xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of other tiers, and give all tests that use Ray to one worker, which starts with them."""
    for item in items:
        if item.get_closest_marker("real_s3"):
            item.add_marker(pytest.mark.variant)
        if item.get_closest_marker("ray") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("ray"))

    def runs(item: pytest.Item) -> bool:
        if item.get_closest_marker("faults"):
            return bool(config.getoption("--faults"))
        return bool(config.getoption("--all")) or not item.get_closest_marker("variant")

    if deselected := [item for item in items if not runs(item)]:
        config.hook.pytest_deselected(items=deselected)
    items[:] = sorted(filter(runs, items), key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test leaves in the cache, the person who runs it does not find there; nor the other way round."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `zsic demo` has run, with few pictures and without Ray; tests add outputs of other names."""
    from zsic.console.demo import demo

    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        demo(Path("zsic-demo"), 60, 0, engine="local")
    return folder


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """Credentials that every server here takes, and nothing of what the machine's own configuration would add."""
    if "ZSIC_TEST_S3_ENDPOINT" in os.environ:
        yield
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", Swift.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", Swift.secret)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="session")
def s3_server(s3_environment: None) -> Iterator[str]:
    """The URL of moto's S3 server.  It checks no signature."""
    # moto's own server looks through its 180 services at each request, which takes as long as the request.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def s3_bucket(s3_server: str) -> tuple[str, str]:
    """The URL of moto's server and the name of a fresh bucket."""
    return s3_server, _make_bucket(s3_server)


@pytest.fixture(scope="session")
def real_s3_server(s3_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real S3 server: the one the environment names, else an OpenStack Swift started here."""
    given = os.environ.get("ZSIC_TEST_S3_ENDPOINT")
    if given:
        yield given
        return
    if shutil.which("swift-ring-builder") is None:
        pytest.skip("needs ZSIC_TEST_S3_ENDPOINT, or OpenStack Swift (`pip install swift`) on PATH")
    with Swift(tmp_path_factory.mktemp("swift")) as swift:
        yield swift.url


@pytest.fixture
def real_s3_bucket(real_s3_server: str) -> tuple[str, str]:
    """The URL of the real server and the name of a fresh bucket."""
    return real_s3_server, _make_bucket(real_s3_server)


@pytest.fixture(scope="session")
def cluster_address(s3_server: str) -> Iterator[str]:
    """A cluster of one node with 2 CPUs, in this test run only; runs connect to it and leave it standing.

    Its workers find the S3 server's credentials as workers do: in the environment that they were started in.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "object_store_memory": 200 * 2**20,
                "include_dashboard": False,
            },
        )
        yield cluster.address
        cluster.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.variant])])
def execution(request: pytest.FixtureRequest) -> dict[str, object]:
    """Fields to run a job in this process and, as a variant, on the shared cluster."""
    if request.param == "local":
        return {"engine": "local", "no_progress_timeout_s": 120}
    return request.getfixturevalue("on_ray")  # type: ignore[no-any-return]


@pytest.fixture
def on_ray(cluster_address: str) -> dict[str, object]:
    """Fields to run a job on the shared cluster."""
    return {"engine": "ray", "address": cluster_address, "no_progress_timeout_s": 120}


@pytest.fixture(params=[*DISK_AND_S3, REAL_S3])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty folder, and the same test again in an empty bucket of either server."""
    if request.param == "disk":
        return Place(str(tmp_path), StoreSpec(attempts=2, timeout_s=10))
    fixture = "s3_bucket" if request.param == "s3" else "real_s3_bucket"
    return _open_bucket(*request.getfixturevalue(fixture))


@pytest.fixture
def s3_place(s3_bucket: tuple[str, str]) -> Place:
    """An empty bucket of moto's server."""
    return _open_bucket(*s3_bucket)


@pytest.fixture(scope="session")
def _fault_proxy(s3_server: str) -> Iterator[FaultProxy]:
    with _proxy_before(s3_server) as proxy:
        yield proxy


@pytest.fixture
def real_fault_proxy(real_s3_server: str) -> Iterator[FaultProxy]:
    """A proxy before the real S3 server."""
    with _proxy_before(real_s3_server) as proxy:
        yield proxy


@contextlib.contextmanager
def _proxy_before(server: str) -> Iterator[FaultProxy]:
    address = urlsplit(server)
    proxy = FaultProxy((address.hostname or "", address.port or 80))
    yield proxy
    proxy.stop()


@pytest.fixture
def fault_proxy(_fault_proxy: FaultProxy, s3_bucket: tuple[str, str]) -> FaultProxy:
    """A proxy before moto's server; its `rules` say what breaks, and are empty to begin with.

    One for all tests: an S3 client takes half a second to make, and each URL needs its own.  It minds the test's own
    bucket: a reader of the test before may still read ahead.
    """
    _fault_proxy.rules, _fault_proxy.requests = [], []
    _fault_proxy.match = rf"/{s3_bucket[1]}\b"
    return _fault_proxy


def _open_bucket(url: str, bucket: str) -> Place:
    store = StoreSpec(s3_endpoint_url=url, attempts=2, timeout_s=10)
    return Place(f"s3://{bucket}", store, boto3.client("s3", endpoint_url=url))


def _make_bucket(url: str) -> str:
    bucket = f"zsic-test-{os.getpid()}-{next(_numbers)}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=bucket)
    return bucket
