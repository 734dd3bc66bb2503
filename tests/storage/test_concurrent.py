"""Several processes at once on one output, none of which believes in the others; and a reader all along."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import TESTS
from support.crashpoints import Hours, make_world
from support.toy import assert_exact, play, read_published

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec
from zsic.storage.output import Output
from zsic.storage.snapshot import last_snapshot
from zsic.storage.store import Store, open_store


def watch(store: Store) -> int:
    """Read what is published; returns the number of snapshots it shows.  Whatever is seen is whole."""
    before = last_snapshot(store)
    if before is None:
        return 0
    try:
        rows = read_published(store)
    except (StoreError, FileNotFoundError):
        assert last_snapshot(store) != before  # replaced while it was read
        return before.sequence
    if last_snapshot(store) == before:
        assert len(rows) == len({row["id"] for row in rows}) == before.n_rows
    return before.sequence


@pytest.mark.parametrize(
    ("kind", "names", "n_versions"),
    [
        ("disk", ["ann", "bob", "eve"], 3),
        ("s3", ["ann", "bob"], 2),
        pytest.param("s3", ["ann", "bob", "eve"], 3, marks=pytest.mark.variant),
    ],
)
def test_several_at_once(
    tmp_path: Path, kind: str, names: list[str], n_versions: int, request: pytest.FixtureRequest
) -> None:
    endpoint, uri = "", str(tmp_path / "out")
    if kind == "s3":
        endpoint, bucket = request.getfixturevalue("s3_bucket")
        uri = f"s3://{bucket}/out"
    store = open_store(uri, StoreSpec(s3_endpoint_url=endpoint or None))
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "support.racer", uri, endpoint, name, str(n_versions)],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    n_seen = 0
    while any(racer.poll() is None for racer in racers):
        n_seen = max(n_seen, watch(store))
        time.sleep(0.05)  # a reader that never rests takes the cores from the racers
    for racer in racers:
        _, errors = racer.communicate()
        assert racer.returncode == 0, errors
    assert n_seen >= 2

    world = make_world()
    world.things["/photos/0.jpg"].version = world.things["/photos/s.tar"].version = n_versions
    world.things["/photos/far.jpg"].broken_at = None
    for number in range(3):
        play(Output(store, clock=Hours()), world, run=f"last-{number}", retry_failed=number == 1)
    assert_exact(store, world)
