import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.evaluate.accuracy import Accuracy


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    # The first four: Newcombe (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_s_interval_agrees_with_published_values(n_right: int, n: int, low: float, high: float) -> None:
    assert Accuracy(n_right, n).interval == pytest.approx((low, high), abs=5e-5)


COUNTS = st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_the_interval_holds_the_share_and_stays_between_0_and_1(counts: tuple[int, int]) -> None:
    accuracy = Accuracy(*counts)
    low, high = accuracy.interval
    assert accuracy.value is not None
    assert 0 <= low <= accuracy.value <= high <= 1


@given(COUNTS)
def test_right_and_wrong_are_mirror_images(counts: tuple[int, int]) -> None:
    n_right, n = counts
    low, high = Accuracy(n_right, n).interval
    assert Accuracy(n - n_right, n).interval == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_more_images_narrow_it(counts: tuple[int, int]) -> None:
    n_right, n = counts
    low, high = Accuracy(n_right, n).interval
    low10, high10 = Accuracy(10 * n_right, 10 * n).interval
    assert high10 - low10 < high - low


def test_nothing_counted_says_nothing() -> None:
    nothing = Accuracy(0, 0)
    assert (nothing.value, nothing.interval, str(nothing)) == (None, (0.0, 1.0), "-")
    assert json.loads(json.dumps(nothing.to_dict()))["value"] is None


def test_it_reads_as_percent() -> None:
    assert str(Accuracy(81, 263)) == "30.8 % (25.5 to 36.6)"
