"""What is kept of runs, and what the next one takes from it."""

import json
from pathlib import Path

import pytest

from zsic.core.spec import StoreSpec
from zsic.pipeline.summary import MAX_READ, RUNS, last_rate
from zsic.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path), StoreSpec())


def enter(store: Store, at: str, state: str, flow_s: float, rate: float) -> None:
    record = {"state": state, "seconds": {"flow": flow_s}, "images_per_s": rate}
    store.create(f"{RUNS}/{at}-00000000.json", json.dumps(record).encode())


def test_the_last_run_that_was_long_enough_and_whole_tells_the_rate(store: Store) -> None:
    assert last_rate(store) is None
    enter(store, "20261101T000000Z", "complete", 100, 10)
    enter(store, "20261102T000000Z", "complete", 100, 20)
    assert last_rate(store) == 20
    enter(store, "20261103T000000Z", "complete", 5, 30)
    enter(store, "20261104T000000Z", "stopped", 1000, 40)
    assert last_rate(store) == 20


def test_years_of_short_nights_are_not_read(store: Store) -> None:
    enter(store, "20251101T000000Z", "complete", 100, 10)
    for day in range(MAX_READ):
        enter(store, f"202611{day:02}T000000Z", "complete", 5, 30)
    assert last_rate(store) is None
