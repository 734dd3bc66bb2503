"""What the parts hold, counted."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import StoreError
from zsic.storage.ledger import Ledger, are_in, merge_runs, runs_of
from zsic.storage.part import PartFacts


def part(name: str, ids: list[int], totals: dict[int, int] | None = None) -> PartFacts:
    return PartFacts(name, 1, np.array(ids, np.int64), totals or {}, {"ok": len(ids)})


@given(
    parts=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6),
    total=st.integers(1, 31),
    redone=st.booleans(),
)
def test_ledger_agrees_with_sets(parts: list[list[int]], total: int, redone: bool) -> None:
    ledger = Ledger(9, 0, [7, 3, 5]) if redone else Ledger(3, 1)
    position = 1 if redone else 0
    seen: set[int] = set()
    n_all = 0
    for number, indices in enumerate(parts):
        kept = [index for index in indices if index < total]
        fresh = len(set(kept) - seen)
        ledger.add(part(str(number), [(3 << 24) + index for index in kept], {3: total} if total - 1 in kept else {}))
        seen |= set(kept)
        n_all += len(kept)
        entry = ledger.entries[-1]
        assert (entry.n_rows - entry.n_doubled, entry.n_rows) == (fresh, len(kept))
    assert ledger.n_rows == len(seen)
    assert ledger.n_doubled == n_all - len(seen)
    assert (ledger.n_sources_done == 1) == (seen == set(range(total)))
    left = [each for each in ledger.pending(0, 3 if redone else 1) if each[0] == position]
    if ledger.n_sources_done:
        assert left == []
    else:
        ((_, runs, known),) = left
        assert known == (total if total - 1 in seen else None)
        assert {index for start, stop in runs for index in range(start, stop)} == seen


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=8))
def test_merged_runs_are_a_union(spans: list[tuple[int, int]]) -> None:
    wanted: set[int] = set()
    merged: tuple[tuple[int, int], ...] = ()
    for start, length in spans:
        wanted |= set(range(start, start + length))
        merged = merge_runs(merged, ((start, start + length),))
    assert {index for start, stop in merged for index in range(start, stop)} == wanted
    assert all(left[1] < right[0] for left, right in itertools.pairwise(merged))
    if wanted:
        assert runs_of(np.array(sorted(wanted))) == merged
    assert are_in(np.arange(30), merged).tolist() == [index in wanted for index in range(30)]


@pytest.mark.parametrize("seed", range(20))
def test_positions_of_redone_and_added_sources(seed: int) -> None:
    rng = random.Random(seed)
    redone = rng.sample(range(100), rng.randint(0, 30))
    ledger = Ledger(100, 50, redone)
    ledger.set_loose(0, np.ones(len(redone) + 50, bool))
    chosen = rng.sample([*redone, *range(100, 150)], 20)
    ledger.add(part("a", [ordinal << 24 for ordinal in chosen]))
    positions = {ordinal: at for at, ordinal in enumerate([*redone, *range(100, 150)])}
    done = {positions[ordinal] for ordinal in chosen}
    assert {at for at, *_ in ledger.pending(0, len(positions))} == set(positions.values()) - done
    stranger = next(ordinal for ordinal in range(200) if ordinal not in positions)
    with pytest.raises(StoreError, match="its plan does not"):
        ledger.add(part("b", [stranger << 24]))


def test_rows_that_stay_count_as_there_but_not_as_new() -> None:
    ledger = Ledger(10, 0, [4])
    ledger.keep(0, ((0, 3), (5, 8)), 8)
    assert list(ledger.pending(0, 1)) == [(0, ((0, 3), (5, 8)), 8)]
    ledger.add(part("a", [(4 << 24) + 3, (4 << 24) + 4]))
    assert (ledger.n_rows, ledger.all_there) == (2, True)


def test_a_total_with_rows_behind_it_is_none() -> None:
    ledger = Ledger(0, 1)
    ledger.add(part("a", [0, 1, 2], {0: 3}))  # broke off after two images, says a run
    assert ledger.all_there
    ledger.add(part("b", [2, 3, 4]))  # another run read on, and died
    assert list(ledger.pending(0, 1)) == [(0, ((0, 5),), None)]
    ledger.add(part("c", [5], {0: 6}))
    assert ledger.all_there


def test_no_gap_is_taken_for_the_end() -> None:
    ledger = Ledger(0, 1)
    ledger.add(part("a", [*range(8)], {0: 8}))  # broke off there, once
    ledger.add(part("b", [*range(10, 20)], {0: 20}))
    assert list(ledger.pending(0, 1)) == [(0, ((0, 8), (10, 20)), 20)]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_longer_of_two_totals_holds(names: tuple[str, str]) -> None:
    ledger = Ledger(0, 1)
    # At first the shard broke off after two images, and the part with its first row was lost in a crash.
    # The next attempt read it to its end.
    parts = {"a": part("a", [1, 2], {0: 3}), "b": part("b", [0, 3, 4], {0: 5})}
    for name in names:
        ledger.add(parts[name])
    assert ledger.all_there
    assert (ledger.n_rows, ledger.n_doubled) == (5, 0)


@pytest.mark.parametrize(
    ("ids", "totals"), [([5 << 24], None), ([(0 << 24) + 1], None), ([0], {7: 1})], ids=["id", "index", "total"]
)
def test_a_part_that_does_not_fit_the_plan_is_refused(ids: list[int], totals: dict[int, int] | None) -> None:
    ledger = Ledger(0, 2)
    ledger.set_loose(0, np.ones(2, bool))
    with pytest.raises(StoreError, match="move it away"):
        ledger.add(part("a", ids, totals))
