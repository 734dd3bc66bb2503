from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.reliability import N_BINS, Reliability

_answers = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=60)


def _reference(answers: list[tuple[float, bool]], n_bins: int) -> float:
    """The definition: bins one by one, each with its share right and mean score."""
    error = 0.0
    for m in range(n_bins):
        low, high = Fraction(m, n_bins), Fraction(m + 1, n_bins)
        inside = [answer for answer in answers if low < Fraction(answer[0]) <= high or (m == 0 and answer[0] == 0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(score for score, _ in inside) / len(inside)
            error += len(inside) / len(answers) * abs(accuracy - confidence)
    return error


@given(answers=_answers.filter(bool), n_bins=st.sampled_from([1, 2, 10, N_BINS]))
def test_error_is_the_definition(answers: list[tuple[float, bool]], n_bins: int) -> None:
    score_N, right_N = zip(*answers, strict=True)
    assert Reliability.count(score_N, right_N, n_bins).error == pytest.approx(_reference(answers, n_bins), abs=1e-9)


@given(answers=_answers, cut=st.integers(0, 60))
def test_batches_add_up(answers: list[tuple[float, bool]], cut: int) -> None:
    score_N, right_N = np.array([a[0] for a in answers]), np.array([a[1] for a in answers], bool)
    whole = Reliability.count(score_N, right_N)
    parts = Reliability.count(score_N[cut:], right_N[cut:]) + Reliability.count(score_N[:cut], right_N[:cut])
    assert parts.n == whole.n == len(answers)
    np.testing.assert_array_equal(parts.n_M, whole.n_M)
    np.testing.assert_array_equal(parts.n_right_M, whole.n_right_M)
    np.testing.assert_allclose(parts.score_sum_M, whole.score_sum_M)


@given(answers=_answers.filter(bool))
def test_error_is_at_least_the_gap_of_the_means(answers: list[tuple[float, bool]]) -> None:
    score_N, right_N = np.array([a[0] for a in answers]), np.array([a[1] for a in answers], bool)
    error = Reliability.count(score_N, right_N).error
    assert error is not None
    assert abs(score_N.mean() - right_N.mean()) - 1e-9 <= error <= 1


def test_borders_belong_to_the_bin_below() -> None:
    reliability = Reliability.count(np.arange(N_BINS + 1) / N_BINS, np.ones(N_BINS + 1))
    assert reliability.n_M.tolist() == [2] + [1] * (N_BINS - 1)


def test_of_nothing_there_is_no_error() -> None:
    assert Reliability.count([], []).error is None


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="not in 0 to 1"):
        Reliability.count([score], [True])
