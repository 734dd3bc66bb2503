"""Every operation of a run is a place to die at: the next run finds what is there, and nothing is lost or doubled.

`tests/support/crashpoints.py` tells the story.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.crashpoints import (
    ACTS,
    STORIES,
    Act,
    Breaking,
    DiskWatch,
    Hours,
    break_and_mend,
    count_operations,
    prepare,
)
from support.faultproxy import Act as WireAct
from support.faultproxy import FaultProxy, Rule
from support.toy import assert_exact, play

from zsic.core.spec import StoreSpec
from zsic.storage.output import Output
from zsic.storage.store import open_store

WIRE_ACTS: tuple[WireAct, ...] = ("lose", "unavailable", "reset", "truncate")


def every(some: int | None, more: int, many: int = 1) -> pytest.MarkDecorator:
    """Break one operation in so many: in `make test`, in `make test-all` and in `make test-faults`."""
    tiers = [pytest.param(more, marks=pytest.mark.variant), pytest.param(many, marks=pytest.mark.faults)]
    return pytest.mark.parametrize("every", tiers if some is None else [some, *tiers])


def points(n: int, every: int, act: str, acts: Sequence[str]) -> range:
    """Give the operations that one act breaks; those of the other acts lie between them."""
    return range(1 + acts.index(act) * every // len(acts), n + 1, every)


@pytest.fixture(scope="module")
def disk_watch() -> Iterator[DiskWatch]:
    watch = DiskWatch()
    yield watch
    watch.stop()


@every(some=36, more=13)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_store_on_disk(tmp_path: Path, story: str, act: Act, every: int) -> None:
    counted = open_store(str(tmp_path / "counted"), StoreSpec())
    n = count_operations(counted, prepare(counted, story))
    assert n > 60
    for at in points(n, every, act, ACTS):
        store = open_store(str(tmp_path / f"out-{at}"), StoreSpec())
        world = prepare(store, story)
        break_and_mend(store, world, Breaking(store, at, act))


FILE_ACTS = ("die", "ENOSPC", "EIO")


@every(some=140, more=39)
@pytest.mark.parametrize("act", FILE_ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_file_operations(tmp_path: Path, disk_watch: DiskWatch, story: str, act: str, every: int) -> None:
    def break_at(name: str, at: int) -> int:
        store = open_store(str(tmp_path / name), StoreSpec())
        world = prepare(store, story)
        disk_watch.watch(tmp_path / name, at, act)
        try:
            break_and_mend(store, world, store, disk_watch.stop)
        finally:
            disk_watch.stop()
        return disk_watch.n_operations

    n = break_at("counted", 0)
    assert n > 100
    for at in points(n, every, act, FILE_ACTS):
        break_at(f"out-{at}", at)


@pytest.mark.parametrize("shift", range(2))
def test_a_run_of_which_each_third_request_breaks(
    s3_bucket: tuple[str, str], fault_proxy: FaultProxy, shift: int
) -> None:
    endpoint, bucket = s3_bucket
    store = open_store(f"s3://{bucket}/out", StoreSpec(s3_endpoint_url=endpoint))
    world = prepare(store, "second")
    fault_proxy.rules = [
        Rule(".", WIRE_ACTS[(number + shift) % len(WIRE_ACTS)], amount=20, times=1, after=3 * number + shift)
        for number in range(22)
    ]
    broken = open_store(store.uri, StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=3, timeout_s=5))
    assert play(Output(broken, clock=Hours()), world, rows_per_part=3, prune=True) is not None
    assert all(rule.times == 0 for rule in fault_proxy.rules)
    assert_exact(store, world)


@every(some=None, more=52)
@pytest.mark.parametrize("act", WIRE_ACTS)
def test_requests_to_s3(s3_bucket: tuple[str, str], fault_proxy: FaultProxy, act: WireAct, every: int) -> None:
    _break_requests(*s3_bucket, fault_proxy, act, every)


@pytest.mark.real_s3
@every(some=None, more=65, many=5)
@pytest.mark.parametrize("act", WIRE_ACTS)
def test_requests_to_a_real_s3(
    real_s3_bucket: tuple[str, str], real_fault_proxy: FaultProxy, act: WireAct, every: int
) -> None:
    _break_requests(*real_s3_bucket, real_fault_proxy, act, every)


@pytest.mark.faults
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_store_on_s3(s3_bucket: tuple[str, str], story: str, act: Act) -> None:
    _break_operations(*s3_bucket, story, act, 1)


@pytest.mark.real_s3
@every(some=None, more=65, many=5)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("story", STORIES)
def test_operations_of_a_real_store(real_s3_bucket: tuple[str, str], story: str, act: Act, every: int) -> None:
    _break_operations(*real_s3_bucket, story, act, every)


def _break_operations(endpoint: str, bucket: str, story: str, act: Act, every: int) -> None:
    spec = StoreSpec(s3_endpoint_url=endpoint, attempts=3, timeout_s=10)
    counted = open_store(f"s3://{bucket}/counted", spec)
    n = count_operations(counted, prepare(counted, story))
    assert n > 60
    for at in points(n, every, act, ACTS):
        store = open_store(f"s3://{bucket}/out-{at}", spec)
        world = prepare(store, story)
        break_and_mend(store, world, Breaking(store, at, act))


def _break_requests(endpoint: str, bucket: str, proxy: FaultProxy, act: WireAct, every: int) -> None:
    """One request after the other is broken at the wire, as the real client sees it: it mends that by itself."""
    sound = StoreSpec(s3_endpoint_url=endpoint)
    broken = StoreSpec(s3_endpoint_url=proxy.url, attempts=3, timeout_s=5)

    def break_by(name: str, rules: list[Rule]) -> int:
        store = open_store(f"s3://{bucket}/{name}", sound)
        world = prepare(store, "second")
        proxy.rules, proxy.requests = rules, []
        seen: list[str] = []
        broken_store = open_store(f"s3://{bucket}/{name}", broken)
        break_and_mend(store, world, broken_store, lambda: seen.extend(proxy.requests))
        return len(seen)

    n = break_by(f"{act}-counted", [])
    assert n > 60
    for at in points(n, every, act, WIRE_ACTS):
        break_by(f"{act}-{at}", [Rule(".", act, amount=20, times=1, after=at - 1)])
