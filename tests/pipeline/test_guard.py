"""What ends a run from the side."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from zsic.core.errors import IncompleteError
from zsic.core.spec import ExecutionSpec, StoreSpec, make_spec
from zsic.pipeline.guard import Guard, check_failures
from zsic.pipeline.watch import Progress
from zsic.storage.lease import Lease, OvertakenError, describe_holder, take_lease
from zsic.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"), StoreSpec())


@pytest.mark.parametrize(
    ("limit", "n_rows", "n_ok", "stops"),
    [
        ("50%", 999, 0, False),
        ("50%", 1000, 500, False),
        ("50%", 1000, 499, True),
        ("0%", 5000, 4999, True),
        ("100%", 5000, 0, False),
        ("2.5%", 4000, 3900, False),
        ("2.5%", 4000, 3899, True),
        ("3", 10, 7, False),
        ("3", 10, 6, True),
        ("0", 1, 0, True),
    ],
)
def test_a_limit_is_a_count_or_a_share(limit: str, n_rows: int, n_ok: int, stops: bool) -> None:
    outcomes = {"ok": n_ok, "corrupt": n_rows - n_ok}
    if not stops:
        check_failures(limit, n_rows, outcomes)
        return
    with pytest.raises(IncompleteError, match=rf"of {n_rows:,} images failed \(corrupt .*max_failures is {limit}"):
        check_failures(limit, n_rows, outcomes)


@pytest.mark.parametrize("limit", ["-1", "101%", "many", "1.5", "%", "nan%", ""])
def test_other_limits_are_refused(limit: str) -> None:
    with pytest.raises(Exception, match=r"execution\.max_failures: .*share of the images"):
        make_spec({"source": "x", "labels": "a,b", "output": "y", "execution": {"max_failures": limit}})
    assert make_spec(
        {"source": "x", "labels": "a,b", "output": "y", "execution": {"max_failures": 200}}
    ).execution == ExecutionSpec(max_failures="200")


def wait(lease: Lease, progress: Progress | None = None) -> None:
    """A run that takes long, and whose progress is looked at."""
    with Guard(lease, ExecutionSpec()) as guard:
        if progress is not None:
            threading.Timer(0.2, guard.look_at, [progress]).start()
        time.sleep(30)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """As a shell starts what it waits for, and what a script starts in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    assert signal.getsignal(signal.SIGINT) == request.param
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_too_many_failures_interrupt_the_run(store: Store) -> None:
    lease = take_lease(store, describe_holder("one"))
    started = time.monotonic()
    with pytest.raises(IncompleteError, match="3,000 of 4,000 images failed"):
        wait(lease, Progress(n_rows=4_000, outcomes=Counter(ok=1_000, corrupt=3_000)))
    assert time.monotonic() - started < 10
    # The next run is let in at once.
    take_lease(store, describe_holder("two"))


def test_who_ignores_interrupts_goes_on_doing_so(store: Store) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Guard(take_lease(store, describe_holder("one")), ExecutionSpec()):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_run_that_was_overtaken_is_interrupted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zsic.pipeline.guard.BEAT_S", 0.1)
    lease = take_lease(store, describe_holder("one"))
    # The next one has come before the first sign of life; the guard hears of it at the second.
    lease.beat()
    threading.Timer(0.2, store.create, ["_zsic/lease/00000002.json", b"{}"]).start()
    with pytest.raises(OvertakenError, match="taken over"):
        wait(lease)


def test_a_users_interrupt_stays_one(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), Guard(take_lease(store, describe_holder("one")), ExecutionSpec()):
        raise KeyboardInterrupt


def test_a_run_beside_the_main_thread_is_not_interrupted(store: Store) -> None:
    guards: list[Guard] = []

    def run() -> None:
        with Guard(take_lease(store, describe_holder("one")), ExecutionSpec()) as guard:
            guard.stop(IncompleteError("whatever"))
            guards.append(guard)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert guards
