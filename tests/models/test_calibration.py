from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from zsic.core.errors import SpecError
from zsic.core.reliability import Reliability
from zsic.models.calibration import SLOPES, Calibration, fit_platt, fit_temperature, threshold_for

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def _sample(n: int, n_labels: int, slope: float, *, seed: int = 0) -> tuple[Floats, Integers]:
    """Logits whose truth is drawn from the softmax of `slope` times them."""
    rng = np.random.default_rng(seed)
    logit_NC = 3 * rng.standard_normal((n, n_labels))
    cumulative_NC = softmax(slope * logit_NC, axis=1).cumsum(axis=1)
    truth_N = (rng.random((n, 1)) > cumulative_NC).sum(axis=1).clip(max=n_labels - 1)
    return logit_NC, truth_N


def _loss(logit_NC: Floats, truth_N: Integers) -> float:
    return float(-log_softmax(logit_NC, axis=1)[np.arange(len(truth_N)), truth_N].mean())


def _penalised(slope: float, logit_NC: Floats, truth_N: Integers, prior_rows: float) -> float:
    """With the cross entropy of the scores as they were for as many rows more."""
    cross = -(softmax(logit_NC, axis=1) * log_softmax(slope * logit_NC, axis=1)).sum(axis=1).mean()
    return len(truth_N) * _loss(slope * logit_NC, truth_N) + prior_rows * float(cross)


@settings(deadline=None)
@given(
    n=st.integers(1, 40),
    n_labels=st.integers(2, 6),
    slope=st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    prior_rows=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 99),
)
def test_temperature_is_that_of_a_general_optimiser(
    n: int, n_labels: int, slope: float, prior_rows: float, seed: int
) -> None:
    logit_NC, truth_N = _sample(n, n_labels, slope, seed=seed)
    found = fit_temperature(logit_NC, truth_N, prior_rows=prior_rows)
    low, high = np.log(SLOPES)
    reference = minimize_scalar(
        lambda log_slope: _penalised(np.exp(log_slope), logit_NC, truth_N, prior_rows),
        bounds=(low, high),
        method="bounded",
    )
    assert _penalised(found.slope, logit_NC, truth_N, prior_rows) <= reference.fun + 1e-7
    assert found.loss_after == pytest.approx(_loss(found.slope * logit_NC, truth_N), abs=1e-12)
    assert found.loss_before == pytest.approx(_loss(logit_NC, truth_N), abs=1e-12)
    assert found.loss_after <= found.loss_before + 1e-12


def test_a_few_right_answers_do_not_make_sure() -> None:
    logit_NC = np.random.default_rng(0).standard_normal((20, 4))
    found = fit_temperature(logit_NC, logit_NC.argmax(axis=1))
    assert 1 < found.slope < 5
    assert not found.at_bound


@pytest.mark.parametrize("slope", [0.1, 0.5, 1.0, 2.0])
def test_temperature_of_the_sample_is_found(slope: float) -> None:
    logit_NC, truth_N = _sample(20_000, 5, slope)
    found = fit_temperature(logit_NC.astype(np.float32), truth_N)
    assert found.slope == pytest.approx(slope, rel=0.05)
    assert found.temperature == 1 / found.slope
    assert found.error_after < 0.015
    assert not found.at_bound
    score_NC = softmax(found.slope * logit_NC, axis=1)
    right_N = score_NC.argmax(axis=1) == truth_N
    assert found.error_after == pytest.approx(Reliability.count(score_NC.max(axis=1), right_N).error, abs=1e-3)


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    logit_NC, truth_N = _sample(100, 4, 0.5)
    temperature, platt = fit_temperature(logit_NC, truth_N), fit_platt(logit_NC, truth_N)
    monkeypatch.setattr("zsic.models.calibration._CELLS_AT_ONCE", 30)
    assert fit_temperature(logit_NC, truth_N).slope == pytest.approx(temperature.slope, rel=1e-9)
    assert fit_platt(logit_NC, truth_N).slope == pytest.approx(platt.slope, rel=1e-9)
    assert fit_platt(logit_NC, truth_N).loss_after == pytest.approx(platt.loss_after, rel=1e-9)


@pytest.mark.parametrize("spread", [0.1, 1.0, 1e5])
def test_where_all_is_right_the_temperature_stops_at_its_bound(spread: float) -> None:
    logit_NC = spread * np.random.default_rng(0).random((20, 4))
    found = fit_temperature(logit_NC, logit_NC.argmax(axis=1), prior_rows=0)
    assert (found.slope, found.at_bound) == (SLOPES[1], True)
    assert np.isfinite([found.loss_before, found.loss_after]).all()


def test_where_all_is_wrong_too() -> None:
    logit_NC = np.random.default_rng(0).random((20, 4))
    found = fit_temperature(logit_NC, logit_NC.argmin(axis=1), prior_rows=0)
    assert (found.slope, found.at_bound) == (SLOPES[0], True)
    platt = fit_platt(logit_NC, logit_NC.argmin(axis=1))
    assert (platt.slope, platt.at_bound) == (SLOPES[0], True)


@pytest.mark.parametrize("fit", [fit_temperature, fit_platt])
def test_a_scale_beyond_the_bounds_stops_there(fit: Callable[[Floats, Integers], Calibration]) -> None:
    if fit is fit_temperature:
        fit = partial(fit_temperature, prior_rows=0)
    logit_NC, truth_N = _sample(200, 4, 1.0)
    for factor, bound in ((1e-5, SLOPES[1]), (1e5, SLOPES[0])):
        found = fit(factor * logit_NC, truth_N)
        assert (found.slope, found.at_bound) == (bound, True)


@pytest.mark.parametrize("logit", [0.0, 0.1, -31.7])
def test_logits_that_tell_nothing_stay(logit: float) -> None:
    found = fit_temperature(np.full((5, 3), logit), np.array([0, 1, 2, 0, 0]))
    assert (found.slope, found.at_bound) == (1.0, False)
    platt = fit_platt(np.full((5, 3), logit), np.array([0, 1, 2, 0, 0]))
    assert platt.slope == 1.0
    assert expit(logit + platt.intercept) == pytest.approx((5.1 / 5.2 * 5 + 0.1 / 10.2 * 10) / 15)


@pytest.mark.parametrize("n_labels", [1, 2])
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_give_finite_numbers(n: int, n_labels: int) -> None:
    logit_NC = np.random.default_rng(0).standard_normal((n, n_labels)) * 30 - 10
    for found in (fit_temperature(logit_NC, np.zeros(n, int)), fit_platt(logit_NC, np.zeros(n, int))):
        assert np.isfinite([found.slope, found.intercept, found.loss_after, found.error_after]).all()


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(4, 40),
    n_labels=st.integers(2, 6),
    slope=st.sampled_from([0.2, 1.0, 3.0]),
    bias=st.sampled_from([-16.0, 0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_platt_is_logistic_regression_on_its_targets(
    n: int, n_labels: int, slope: float, bias: float, seed: int
) -> None:
    logit_NC, truth_N = _sample(n, n_labels, slope, seed=seed)
    logit_NC += bias
    found = fit_platt(logit_NC, truth_N)
    n_wrong = n * (n_labels - 1)
    is_right_NC = np.arange(n_labels) == truth_N[:, None]
    target_NC = np.where(is_right_NC, (n + 0.1) / (n + 0.2), 0.1 / (n_wrong + 0.2))
    # A target of 0.9 is nine pairs of ten that are right.
    x, weight = np.tile(logit_NC.ravel(), 2)[:, None], np.concatenate([target_NC.ravel(), 1 - target_NC.ravel()])
    y = np.repeat([1, 0], logit_NC.size)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y, sample_weight=weight)
    if SLOPES[0] < reference.coef_[0, 0] < SLOPES[1]:
        assert found.slope == pytest.approx(reference.coef_[0, 0], rel=1e-3, abs=1e-4)
        assert found.intercept == pytest.approx(reference.intercept_[0], rel=1e-3, abs=1e-3)
        assert not found.at_bound
    else:
        assert found.at_bound


def test_platt_finds_the_line_of_the_sample() -> None:
    rng = np.random.default_rng(0)
    n, n_labels = 30_000, 4
    truth_N = rng.integers(0, n_labels, n)
    logit_NC = rng.standard_normal((n, n_labels)) - 10
    logit_NC[np.arange(n), truth_N] += 2  # the log odds of two normal bells of width 1, 2 apart, are a line
    found = fit_platt(logit_NC, truth_N)
    assert found.slope == pytest.approx(2, rel=0.03)
    assert found.intercept == pytest.approx(-np.log(3) + 2 * 9, rel=0.03)
    assert found.loss_after < found.loss_before
    assert found.error_after < found.error_before


def test_platt_on_what_does_not_overlap_stays_finite() -> None:
    logit_NC = np.where(np.eye(3, dtype=bool)[[0, 1, 2, 0]], -5.0, -15.0)
    found = fit_platt(logit_NC, np.array([0, 1, 2, 0]))
    assert not found.at_bound
    right, wrong = expit(found.slope * np.array([-5.0, -15.0]) + found.intercept)
    assert right == pytest.approx(4.1 / 4.2)
    assert wrong == pytest.approx(0.1 / 8.2)


@pytest.mark.parametrize("fit", [fit_temperature, fit_platt])
def test_no_row_is_refused(fit: Callable[[Floats, Integers], Calibration]) -> None:
    with pytest.raises(SpecError, match="no picture with a known label"):
        fit(np.zeros((0, 3)), np.zeros(0, int))


# Few distinct values, so that ties are the rule.
@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=30),
    share=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0])),
)
def test_threshold_is_the_highest_that_keeps_its_word(values: list[float], share: float) -> None:
    found = threshold_for(np.array(values, np.float32), share)
    sample = np.array(values, np.float32).astype(float)
    assert found.rejected == (sample < found.value).mean()
    assert found.rejected <= share + 1e-9
    # The next higher one would reject the values that equal this one too.
    assert found.value == np.inf or (sample <= found.value).mean() > share


def test_threshold_reaches_what_rounding_would_miss() -> None:
    assert threshold_for(np.arange(100.0), 0.29) == (29.0, 0.29)


@pytest.mark.parametrize(("values", "share"), [([], 0.1), ([0.1, np.nan], 0.1), ([0.5], -0.1), ([0.5], 1.1)])
def test_no_sample_and_no_share_are_refused(values: list[float], share: float) -> None:
    with pytest.raises(SpecError):
        threshold_for(np.array(values), share)
