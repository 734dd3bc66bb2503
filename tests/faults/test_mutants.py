"""Damage of every kind, seeded: nothing but rows ever comes out, in bounded time and memory.

`make test` tries a few of each kind, `make test-all` hundreds, and `make test-faults` `ZSIC_MUTANTS`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TESTS, mutants

AT_ONCE = 25_000


def try_mutants(first: int, last: int, folder: Path, *kinds: str) -> str:
    """In a process of its own, for a decoder may crash; the log then has the kind and number of the mutant."""
    log = folder / "number"
    command = [sys.executable, "-m", "support.mutants", str(first), str(last), str(log), *kinds]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=3600, check=False, cwd=TESTS
    )
    assert done.returncode == 0, f"{log.read_text()}: {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("n", [60, pytest.param(300, marks=pytest.mark.variant)])
def test_damage_makes_rows_and_nothing_else(n: int, tmp_path: Path) -> None:
    lines = try_mutants(0, n, tmp_path, *mutants.SEEDS).splitlines()
    assert len(lines) == len(mutants.SEEDS)
    for line in lines:
        assert "bad_shard" in line or "corrupt" in line
        assert "ok" in line


@pytest.mark.faults
@pytest.mark.parametrize("kind", mutants.SEEDS)
def test_much_damage_makes_rows_and_nothing_else(kind: str, tmp_path: Path) -> None:
    n = int(os.environ.get("ZSIC_MUTANTS", "200000"))
    for first in range(0, n, AT_ONCE):
        sys.stdout.write(try_mutants(first, min(first + AT_ONCE, n), tmp_path, kind))


def test_the_same_number_is_the_same_mutant_everywhere() -> None:
    assert mutants.mutant("tar", 7) == mutants.mutant("tar", 7)
    assert mutants.mutant("tar", 7) != mutants.mutant("tar", 8)
