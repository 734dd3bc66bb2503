"""Which rows are shown: the best of each group, and random ones, however the rows come."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zsic.report.selection import Best, shuffle

Rows = list[tuple[int, float]]
rows_strategy = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=60)


@given(rows=rows_strategy, cuts=st.lists(st.integers(0, 60), max_size=6), n=st.integers(0, 5))
def test_the_best_of_each_group_however_rows_are_cut_into_batches(rows: Rows, cuts: list[int], n: int) -> None:
    best = Best(n)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut <= len(rows))})
    for part, (begin, stop) in enumerate(pairwise(bounds)):
        batch = rows[begin:stop]
        groups, values = (np.array([row[i] for row in batch]) for i in (0, 1))
        best.add(groups.astype(np.int64), values.astype(np.float64), np.arange(begin, stop), part)
    for group in range(5):
        ids = [i for i, row in enumerate(rows) if row[0] == group]
        expected = sorted(ids, key=lambda i: (-rows[i][1], i))[:n]
        found = best.of(group)
        assert [row for row, _ in found] == expected
        assert all(bounds[part] <= row < bounds[part + 1] for row, part in found)
        assert best.of(group, 1) == found[:1]


def test_random_numbers_depend_on_id_and_seed_alone_and_fill_the_unit_interval() -> None:
    ids = np.arange(200_000, dtype=np.int64) << 24
    number = shuffle(ids, seed=3)
    assert np.array_equal(shuffle(ids[::-1], seed=3)[::-1], number)
    other = shuffle(ids, seed=4)
    assert abs(np.corrcoef(number, other)[0, 1]) < 0.01
    # Kolmogorov's distance to the uniform distribution; 1.63 / sqrt(n) is passed in one case of a hundred.
    assert np.abs(np.sort(number) - np.linspace(0, 1, len(ids))).max() < 1.63 / np.sqrt(len(ids))
    assert abs(np.corrcoef(number[:-1], number[1:])[0, 1]) < 0.01
