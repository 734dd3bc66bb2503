"""Histograms that are counted as rows stream by."""

import numpy as np
import pytest

from zsic.report.spread import MOST_BARS, Histogram, Spread


def test_counts_are_those_of_numpy_and_new_labels_may_come() -> None:
    rng = np.random.default_rng(0)
    spread, seen = Spread(0.0, 1.0, 25), []
    for n_labels in (2, 2, 5):
        label_N, value_N = rng.integers(0, n_labels, 500), rng.random(500)
        value_N[:20] = np.nan
        spread.add(label_N, value_N, n_labels)
        seen.append((label_N[20:], value_N[20:]))
    label_N, value_N = (np.concatenate(each) for each in zip(*seen, strict=True))
    found = spread.close()
    for label in range(5):
        expected, _ = np.histogram(value_N[label_N == label], 25, (0, 1))
        assert found.n_CM[label].tolist() == expected.tolist()


def test_what_is_beyond_the_bounds_is_counted_in_the_last_bins() -> None:
    spread = Spread(0.0, 0.5, 5)
    spread.add(np.zeros(3, np.int64), np.array([-1.0, 0.5, 9.0]), 1)
    assert spread.close().total_M.tolist() == [1, 0, 0, 0, 2]


@pytest.mark.parametrize("used", [[7], [100, 101, 130], [0, 199], [50, 79], [50, 80], []])
def test_trimming_loses_no_row_and_keeps_each_in_its_bounds(used: list[int]) -> None:
    n_CM = np.zeros((2, 200), np.int64)
    for weight, bin_ in enumerate(used, start=1):
        n_CM[1, bin_] = weight
    trimmed = Histogram(-1.0, 1.0, n_CM).trim()
    assert trimmed.n_CM.sum() == n_CM.sum()
    assert trimmed.n_CM[0].sum() == 0
    if not used:
        return
    n_bars = trimmed.n_CM.shape[1]
    assert n_bars <= MOST_BARS + 1
    assert trimmed.total_M[0] > 0
    assert trimmed.total_M[-1] > 0
    width = (trimmed.high - trimmed.low) / n_bars
    expected = np.zeros(n_bars, np.int64)
    for weight, bin_ in enumerate(used, start=1):
        expected[int(((bin_ + 0.5) / 100 - 1 - trimmed.low) / width)] += weight
    assert trimmed.total_M.tolist() == expected.tolist()
