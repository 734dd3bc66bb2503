import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from zsic.core.errors import SpecError
from zsic.core.reliability import Reliability
from zsic.models.calibration import SLOPES
from zsic.models.temperature import fit_temperature

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


def test_batches_make_no_difference() -> None:
    logit_NC, truth_N = _sample(100, 4, 0.5)
    whole = fit_temperature(logit_NC, truth_N)
    assert fit_temperature(logit_NC, truth_N, cells_at_once=30).slope == pytest.approx(whole.slope, rel=1e-9)


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


def test_a_scale_beyond_the_bounds_stops_there() -> None:
    logit_NC, truth_N = _sample(200, 4, 1.0)
    for factor, bound in ((1e-5, SLOPES[1]), (1e5, SLOPES[0])):
        found = fit_temperature(factor * logit_NC, truth_N, prior_rows=0)
        assert (found.slope, found.at_bound) == (bound, True)


@pytest.mark.parametrize("logit", [0.0, 0.1, -31.7])
def test_logits_that_tell_nothing_stay(logit: float) -> None:
    found = fit_temperature(np.full((5, 3), logit), np.array([0, 1, 2, 0, 0]))
    assert (found.slope, found.at_bound) == (1.0, False)


@pytest.mark.parametrize("n_labels", [1, 2])
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_give_finite_numbers(n: int, n_labels: int) -> None:
    logit_NC = np.random.default_rng(0).standard_normal((n, n_labels)) * 30 - 10
    found = fit_temperature(logit_NC, np.zeros(n, int))
    assert np.isfinite([found.slope, found.intercept, found.loss_after, found.error_after]).all()


def test_no_row_is_refused() -> None:
    with pytest.raises(SpecError, match="no picture with a known label"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
