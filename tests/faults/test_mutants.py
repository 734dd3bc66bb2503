"""Damage of every kind, seeded: nothing but rows ever comes out, in bounded time and memory.

The short run is part of the suite; `make test-faults` makes the long one, of `ZSIC_MUTANTS` mutants of each kind.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS, mutants

AT_ONCE = 25_000


def try_mutants(kind: str, first: int, last: int, folder: Path) -> str:
    """In a process of its own, for a decoder may crash; the log then has the number of the mutant."""
    log = folder / "number"
    command = [sys.executable, "-m", "support.mutants", kind, str(first), str(last), str(log)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=3600, check=False, cwd=TESTS
    )
    assert done.returncode == 0, f"{kind} {log.read_text()}: {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize(("kind", "n"), [("image", 300), ("tar", 300), ("tar.gz", 200), ("parquet", 300)])
def test_damage_makes_rows_and_nothing_else(kind: str, n: int, tmp_path: Path) -> None:
    assert "bad_shard" in (told := try_mutants(kind, 0, n, tmp_path)) or "corrupt" in told
    assert "ok" in told


@pytest.mark.faults
@pytest.mark.parametrize("kind", mutants.SEEDS)
def test_much_damage_makes_rows_and_nothing_else(kind: str, tmp_path: Path) -> None:
    n = int(os.environ.get("ZSIC_MUTANTS", "200000"))
    for first in range(0, n, AT_ONCE):
        sys.stdout.write(try_mutants(kind, first, min(first + AT_ONCE, n), tmp_path))


def test_the_same_number_is_the_same_mutant_everywhere() -> None:
    assert mutants.mutant("tar", 7) == mutants.mutant("tar", 7)
    assert mutants.mutant("tar", 7) != mutants.mutant("tar", 8)
