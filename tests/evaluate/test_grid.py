import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zsic.evaluate.grid import N_BINS, first_of_bins, to_bins

SCORES = st.floats(0, 1, width=32)


@given(SCORES, SCORES)
def test_bins_ascend_with_scores(one: float, other: float) -> None:
    low, high = to_bins(np.array(sorted([one, other]), np.float32))
    assert 0 <= low <= high < N_BINS


@given(SCORES.filter(lambda score: 1e-9 < score < 1), st.integers(0, 1))
def test_a_bin_is_narrow_as_seen_from_the_nearer_end(score: float, side: int) -> None:
    bin_ = to_bins(np.array([score], np.float32))[0]
    first = first_of_bins()
    above = first[bin_ + 1] if bin_ + 1 < N_BINS else np.float32(1)
    # And one step of a float32 for rounding near 1.
    assert above - first[bin_] <= max(min(score, 1 - score), 1e-7) / 64 + 1.3e-7


def test_the_first_score_of_a_bin_is_its_first() -> None:
    first, numbers = first_of_bins(), np.arange(N_BINS)
    bins = to_bins(first)
    # Near 1 there are bins that no float32 falls into.
    assert (bins >= numbers).all()
    assert (bins == numbers).mean() > 0.6
    before = np.nextafter(first[first > 0], np.float32(-1))
    assert (to_bins(before) < numbers[first > 0]).all()


def test_what_is_no_share_is_taken_for_the_nearest() -> None:
    scores = np.array([-1, 0, np.nan, 1, 2, np.inf], np.float32)
    assert to_bins(scores).tolist() == [0, 0, 0, N_BINS - 1, N_BINS - 1, N_BINS - 1]


def test_doubles_are_binned_as_what_is_written() -> None:
    scores = np.random.default_rng(0).random(1000)
    np.testing.assert_array_equal(to_bins(scores), to_bins(scores.astype(np.float32)))
