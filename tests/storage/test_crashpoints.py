"""Every operation of a run is a place to die at: the next run finds what is there, and nothing is lost or doubled.

Here some of the points; `make test-faults` plays all of them (`tests/crashpoints.py` tells the story).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashpoints import ACTS, STORIES, Act, Breaking, DiskWatch, break_and_mend, count_operations, prepare
from faultproxy import FaultProxy, Rule

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


@pytest.mark.parametrize("act", ["lose", "unavailable", "reset", "truncate"])
def test_requests_to_s3(s3_bucket: tuple[str, str], fault_proxy: FaultProxy, act: str) -> None:
    """One request after the other is broken at the wire, as the real client sees it: it mends that by itself."""
    endpoint, bucket = s3_bucket
    sound = StoreSpec(s3_endpoint_url=endpoint)
    broken = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=3, timeout_s=5)

    def play(name: str, rules: list[Rule]) -> int:
        store = open_store(f"s3://{bucket}/{name}", sound)
        world = prepare(store, "second")
        fault_proxy.rules, fault_proxy.requests = rules, []
        seen: list[str] = []
        broken_store = open_store(f"s3://{bucket}/{name}", broken)
        break_and_mend(store, world, broken_store, lambda: seen.extend(fault_proxy.requests))
        return len(seen)

    n = play(f"{act}-counted", [])
    assert n > 60
    for at in range(2, n + 1, _step(4)):
        play(f"{act}-{at}", [Rule(".", act, amount=20, times=1, after=at - 1)])  # type: ignore[arg-type]
