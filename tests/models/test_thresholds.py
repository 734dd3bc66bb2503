import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.models.thresholds import threshold_for, threshold_of_precision

# Few distinct values, so that ties are the rule.
SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30
).filter(lambda sample: any(is_right for _, is_right in sample))
SHARES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]))
BELOW_1 = SHARES.filter(lambda share: share < 1)


def _split(sample: list[tuple[float, bool]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    values, rights = zip(*sample, strict=True)
    return np.array(values, np.float32), np.array(rights)


@given(sample=SAMPLES, share=BELOW_1)
def test_threshold_is_the_highest_that_keeps_its_word(sample: list[tuple[float, bool]], share: float) -> None:
    value_N, right_N = _split(sample)
    found = threshold_for(value_N, right_N, share)
    right = value_N[right_N].astype(float)
    assert found.n_right == len(right)
    assert found.rejected == pytest.approx((right < found.value).mean())
    assert found.rejected <= share + 1e-9
    # The next higher one would reject the values that equal this one too.
    assert (right <= found.value).mean() > share or share > 1 - 1e-9
    assert found.n_kept == (value_N >= found.value).sum()


@given(sample=SAMPLES, precision=SHARES)
def test_threshold_of_a_precision_is_the_lowest_that_has_it(sample: list[tuple[float, bool]], precision: float) -> None:
    value_N, right_N = _split(sample)
    # By trying each value that there is.
    good = [value for value in np.unique(value_N) if right_N[value_N >= value].mean() >= precision]
    if not good:
        with pytest.raises(SpecError, match="no threshold leaves answers of which"):
            threshold_of_precision(value_N, right_N, precision)
        return
    found = threshold_of_precision(value_N, right_N, precision)
    assert found.value == good[0]
    assert found.precision == right_N[value_N >= good[0]].mean()
    assert found.rejected == pytest.approx((value_N[right_N] < good[0]).mean())


def test_threshold_reaches_what_rounding_would_miss() -> None:
    found = threshold_for(np.arange(100.0), np.ones(100, bool), 0.29)
    assert (found.value, found.rejected) == (29.0, pytest.approx(0.29))


@pytest.mark.parametrize("learn", [threshold_for, threshold_of_precision])
@pytest.mark.parametrize(
    ("values", "rights", "share"),
    [
        ([], [], 0.1),
        ([0.5], [False], 0.1),
        ([0.1, np.nan], [True, True], 0.1),
        ([0.5], [True], -0.1),
        ([0.5], [True], 1.1),
    ],
)
def test_no_sample_and_no_share_are_refused(learn, values: list[float], rights: list[bool], share: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError):
        learn(np.array(values), np.array(rights, bool), share)
