"""Every operation of a run is a place to die at: the next run finds what is there, and nothing is lost or doubled.

Here some of the points; `make test-faults` plays all of them (`tests/support/crashpoints.py` tells the story).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crashpoints import ACTS, STORIES, Act, Breaking, DiskWatch, break_and_mend, count_operations, prepare
from support.faultproxy import FaultProxy, Rule

from zsic.core.spec import StoreSpec
from zsic.storage.store import open_store

EVERY = int(os.environ.get("ZSIC_TEST_CRASH_EVERY", "13"))
"""One point in so many; 1 plays all."""


def _step(thinner: int) -> int:
    """Points that take longer are fewer, unless all are asked for."""
    return 1 if EVERY == 1 else thinner * EVERY


@pytest.fixture(scope="module")
def disk_watch() -> Iterator[DiskWatch]:
    watch = DiskWatch()
    yield watch
    watch.stop()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_store_on_disk(tmp_path: Path, story: str, act: Act) -> None:
    counted = open_store(str(tmp_path / "counted"), StoreSpec())
    n = count_operations(counted, prepare(counted, story))
    assert n > 60
    for at in range(1 + ACTS.index(act), n + 1, EVERY):
        store = open_store(str(tmp_path / f"out-{at}"), StoreSpec())
        world = prepare(store, story)
        break_and_mend(store, world, Breaking(store, at, act))


@pytest.mark.parametrize("act", ["die", "ENOSPC", "EIO"])
@pytest.mark.parametrize("story", STORIES)
def test_file_operations(tmp_path: Path, disk_watch: DiskWatch, story: str, act: str) -> None:
    def play(name: str, at: int) -> int:
        store = open_store(str(tmp_path / name), StoreSpec())
        world = prepare(store, story)
        disk_watch.watch(tmp_path / name, at, act)
        try:
            break_and_mend(store, world, store, disk_watch.stop)
        finally:
            disk_watch.stop()
        return disk_watch.n_operations

    n = play("counted", 0)
    assert n > 100
    for at in range(1, n + 1, _step(3)):
        play(f"out-{at}", at)


WIRE_ACTS = ["lose", "unavailable", "reset", "truncate"]


@pytest.mark.parametrize("act", WIRE_ACTS)
def test_requests_to_s3(s3_bucket: tuple[str, str], fault_proxy: FaultProxy, act: str) -> None:
    _break_requests(*s3_bucket, fault_proxy, act, _step(4))


@pytest.mark.real_s3
@pytest.mark.parametrize("act", WIRE_ACTS)
def test_requests_to_a_real_s3(real_s3_bucket: tuple[str, str], real_fault_proxy: FaultProxy, act: str) -> None:
    _break_requests(*real_s3_bucket, real_fault_proxy, act, 5 * EVERY)


@pytest.mark.faults
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_store_on_s3(s3_bucket: tuple[str, str], story: str, act: Act) -> None:
    _break_operations(*s3_bucket, story, act, EVERY)


@pytest.mark.real_s3
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_real_store(real_s3_bucket: tuple[str, str], story: str, act: Act) -> None:
    _break_operations(*real_s3_bucket, story, act, 5 * EVERY)


def _break_operations(endpoint: str, bucket: str, story: str, act: Act, step: int) -> None:
    spec = StoreSpec(s3_endpoint_url=endpoint, attempts=3, timeout_s=10)
    counted = open_store(f"s3://{bucket}/counted", spec)
    n = count_operations(counted, prepare(counted, story))
    assert n > 60
    for at in range(1 + ACTS.index(act), n + 1, step):
        store = open_store(f"s3://{bucket}/out-{at}", spec)
        world = prepare(store, story)
        break_and_mend(store, world, Breaking(store, at, act))


def _break_requests(endpoint: str, bucket: str, proxy: FaultProxy, act: str, step: int) -> None:
    """One request after the other is broken at the wire, as the real client sees it: it mends that by itself."""
    sound = StoreSpec(s3_endpoint_url=endpoint)
    broken = StoreSpec(s3_endpoint_url=proxy.url, attempts=3, timeout_s=5)

    def play(name: str, rules: list[Rule]) -> int:
        store = open_store(f"s3://{bucket}/{name}", sound)
        world = prepare(store, "second")
        proxy.rules, proxy.requests = rules, []
        seen: list[str] = []
        broken_store = open_store(f"s3://{bucket}/{name}", broken)
        break_and_mend(store, world, broken_store, lambda: seen.extend(proxy.requests))
        return len(seen)

    n = play(f"{act}-counted", [])
    assert n > 60
    for at in range(2, n + 1, step):
        play(f"{act}-{at}", [Rule(".", act, amount=20, times=1, after=at - 1)])  # type: ignore[arg-type]
