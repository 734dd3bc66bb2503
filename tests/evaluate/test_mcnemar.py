import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from zsic.evaluate.mcnemar import PairedAccuracy

COUNTS = st.tuples(*[st.integers(0, 400)] * 4)


@given(st.integers(0, 500), st.integers(0, 500))
def test_few_discordant_pairs_are_tested_exactly(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert PairedAccuracy(7, gained, lost, 3).p_value == pytest.approx(expected, rel=1e-9)


@given(st.integers(501, 10**6), st.integers(501, 10**6))
def test_many_are_tested_by_chi_square(gained: int, lost: int) -> None:
    statistic = max(0, abs(gained - lost) - 1) ** 2 / (gained + lost)
    assert PairedAccuracy(0, gained, lost, 0).p_value == pytest.approx(
        stats.chi2.sf(statistic, 1), rel=1e-6, abs=1e-300
    )


def test_both_tests_agree_where_one_takes_over_from_the_other() -> None:
    exact, approximate = PairedAccuracy(0, 470, 530, 0).p_value, PairedAccuracy(0, 470, 531, 0).p_value
    assert exact == pytest.approx(stats.binomtest(470, 1000).pvalue)
    assert approximate == pytest.approx(stats.binomtest(470, 1001).pvalue, rel=0.02)


@given(COUNTS.filter(any))
def test_swapping_the_outputs_mirrors_the_difference(counts: tuple[int, int, int, int]) -> None:
    both, gained, lost, neither = counts
    one, other = PairedAccuracy(both, gained, lost, neither), PairedAccuracy(both, lost, gained, neither)
    assert one.difference == -other.difference  # type: ignore[operator]
    assert one.interval == pytest.approx(tuple(-bound for bound in reversed(other.interval)))
    assert one.p_value == other.p_value
    assert one.output == other.against


@given(COUNTS.filter(any))
def test_the_difference_is_that_of_the_shares(counts: tuple[int, int, int, int]) -> None:
    paired = PairedAccuracy(*counts)
    assert paired.output.value is not None
    assert paired.against.value is not None
    assert paired.difference == pytest.approx(paired.output.value - paired.against.value)
    assert paired.n == sum(counts)


def test_the_interval_is_the_published_one() -> None:
    # By hand, of (43, 4, 1, 2): (5 - 2) / 52 and 1.96 sqrt((7 / 52 - (3 / 52) ** 2) / 52).
    low, high = PairedAccuracy(43, 4, 1, 2).interval
    assert (low, high) == pytest.approx((-0.0408, 0.1562), abs=5e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Outputs of 72 % and 68 %, 200 images: 95 % of the intervals should hold 4 points."""
    import numpy as np

    counts = np.random.default_rng(2).multinomial(200, [0.6, 0.12, 0.08, 0.2], size=2000)
    held = [low <= 0.04 <= high for low, high in (PairedAccuracy(*each).interval for each in counts.tolist())]
    assert 0.935 <= sum(held) / len(held) <= 0.97


def test_nothing_says_nothing() -> None:
    nothing = PairedAccuracy(0, 0, 0, 0)
    assert (nothing.difference, nothing.p_value, str(nothing)) == (None, 1.0, "-")
    assert nothing.interval == pytest.approx((-1, 1), abs=0.05)
    assert json.loads(json.dumps(nothing.to_dict(), allow_nan=False))["difference"] is None
    assert str(PairedAccuracy(60, 12, 8, 20)) == "+4.0 (-5.1 to +12.9)"
