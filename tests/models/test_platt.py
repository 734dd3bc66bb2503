import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from zsic.core.errors import SpecError
from zsic.core.reliability import Reliability
from zsic.models.calibration import SLOPES
from zsic.models.platt import SHIFT_SPREAD, fit_platt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def _sample(n: int, n_labels: int, *, shift: float = 0.0, slope: float = 1.0, seed: int = 0) -> tuple[Floats, Bools]:
    """Logits, and whether each label is true by the sigmoid of a line through them; labels differ by `shift`."""
    rng = np.random.default_rng(seed)
    logit_NC = 3 * rng.standard_normal((n, n_labels))
    shift_C = shift * rng.standard_normal(n_labels)
    return logit_NC, rng.random((n, n_labels)) < expit(slope * logit_NC - 1 + shift_C)


def _targets(wanted_NC: Bools) -> Floats:
    n_right, n_wrong = wanted_NC.sum(), (~wanted_NC).sum()
    return np.where(wanted_NC, (n_right + 0.1) / (n_right + 0.2), 0.1 / (n_wrong + 0.2))


@settings(max_examples=settings.default.max_examples // 2)  # each takes a general optimiser
@given(
    n=st.integers(4, 40),
    n_labels=st.integers(1, 6),
    slope=st.sampled_from([0.2, 1.0, 3.0]),
    bias=st.sampled_from([-16.0, 0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_it_is_logistic_regression_on_its_targets(n: int, n_labels: int, slope: float, bias: float, seed: int) -> None:
    logit_NC, wanted_NC = _sample(n, n_labels, slope=slope, seed=seed)
    wanted_NC[0, 0] = True
    logit_NC += bias
    found = fit_platt(logit_NC, wanted_NC)
    target_NC = _targets(wanted_NC)
    # A target of 0.9 is nine pairs of ten that are right.
    x, weight = np.tile(logit_NC.ravel(), 2)[:, None], np.concatenate([target_NC.ravel(), 1 - target_NC.ravel()])
    y = np.repeat([1, 0], logit_NC.size)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y, sample_weight=weight)
    assert found.shifts == ()
    if SLOPES[0] < reference.coef_[0, 0] < SLOPES[1]:
        assert found.slope == pytest.approx(reference.coef_[0, 0], rel=1e-3, abs=1e-4)
        assert found.intercept == pytest.approx(reference.intercept_[0], rel=1e-3, abs=1e-3)
        assert not found.at_bound
    else:
        assert found.at_bound


@settings(max_examples=settings.default.max_examples // 2)  # each takes a general optimiser
@given(
    n=st.integers(2, 40),
    n_labels=st.integers(1, 6),
    spread=st.sampled_from([0.3, 2.0, 10.0]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_shifts_are_those_of_a_general_optimiser(n: int, n_labels: int, spread: float, scale: float, seed: int) -> None:
    logit_NC, wanted_NC = _sample(n, n_labels, shift=2.0, seed=seed)
    wanted_NC[0, 0] = True
    logit_NC *= scale
    target_NC = _targets(wanted_NC)

    def loss(parameters: Floats) -> float:
        line_NC = parameters[0] * logit_NC + parameters[1] + parameters[2:]
        return float(
            (np.logaddexp(0, line_NC) - target_NC * line_NC).sum() + (parameters[2:] ** 2).sum() / 2 / spread**2
        )

    found = fit_platt(logit_NC, wanted_NC, shift_spread=spread)
    reference = minimize(loss, np.append([1 / scale, 0.0], np.zeros(n_labels)), method="BFGS", tol=1e-9)
    assert len(found.shifts) == n_labels
    if not found.at_bound:
        assert loss(np.array([found.slope, found.intercept, *found.shifts])) <= reference.fun + 1e-6
    else:
        assert not SLOPES[0] < reference.x[0] < SLOPES[1]


def test_the_line_of_the_sample_is_found() -> None:
    rng = np.random.default_rng(0)
    n, n_labels = 30_000, 4
    truth_N = rng.integers(0, n_labels, n)
    logit_NC = rng.standard_normal((n, n_labels)) - 10
    logit_NC[np.arange(n), truth_N] += 2  # the log odds of two normal bells of width 1, 2 apart, are a line
    found = fit_platt(logit_NC, np.arange(n_labels) == truth_N[:, None])
    assert found.slope == pytest.approx(2, rel=0.03)
    assert found.intercept == pytest.approx(-np.log(3) + 2 * 9, rel=0.03)
    assert found.loss_after < found.loss_before
    assert found.error_after < found.error_before


def test_labels_of_their_own_level_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    shift_C = np.array([-2.0, 0.0, 2.0])
    logit_NC = 2 * rng.standard_normal((20_000, 3))
    wanted_NC = rng.random((20_000, 3)) < expit(0.5 * logit_NC - 1 + shift_C)
    found = fit_platt(logit_NC, wanted_NC, shift_spread=SHIFT_SPREAD)
    assert found.slope == pytest.approx(0.5, rel=0.03)
    assert np.array(found.shifts) + found.intercept == pytest.approx(shift_C - 1, abs=0.06)
    line_NC = found.slope * logit_NC + found.intercept + np.array(found.shifts)
    best_N = line_NC.argmax(axis=1)
    score_N, right_N = expit(line_NC.max(axis=1)), np.take_along_axis(wanted_NC, best_N[:, None], axis=1)[:, 0]
    assert found.error_after == pytest.approx(Reliability.count(score_N, right_N).error, abs=1e-6)
    assert found.error_after < 0.01 < found.error_before
    alike = fit_platt(logit_NC, wanted_NC)
    assert found.loss_after < alike.loss_after


def test_a_label_that_no_picture_has_keeps_near_the_others() -> None:
    logit_NC, wanted_NC = _sample(30, 5)
    wanted_NC[:, 2] = False
    found = fit_platt(logit_NC, wanted_NC, shift_spread=SHIFT_SPREAD)
    assert found.shifts[2] == min(found.shifts)
    assert -4 < found.shifts[2] < -0.5


def test_what_does_not_overlap_stays_finite() -> None:
    wanted_NC = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    found = fit_platt(np.where(wanted_NC, -5.0, -15.0), wanted_NC)
    assert not found.at_bound
    right, wrong = expit(found.slope * np.array([-5.0, -15.0]) + found.intercept)
    assert right == pytest.approx(4.1 / 4.2)
    assert wrong == pytest.approx(0.1 / 8.2)


@pytest.mark.parametrize("shift_spread", [0.0, 2.0])
def test_batches_make_no_difference(shift_spread: float) -> None:
    logit_NC, wanted_NC = _sample(100, 4)
    whole = fit_platt(logit_NC, wanted_NC, shift_spread=shift_spread)
    parts = fit_platt(logit_NC, wanted_NC, shift_spread=shift_spread, cells_at_once=30)
    assert (parts.slope, *parts.shifts) == pytest.approx((whole.slope, *whole.shifts), rel=1e-9)
    assert parts.loss_after == pytest.approx(whole.loss_after, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-5, 1e5, -1.0])
@pytest.mark.parametrize("shift_spread", [0.0, 2.0])
def test_a_scale_beyond_the_bounds_is_told(shift_spread: float, factor: float) -> None:
    logit_NC, wanted_NC = _sample(200, 4)
    found = fit_platt(factor * logit_NC, wanted_NC, shift_spread=shift_spread)
    assert (found.slope, found.at_bound) == (SLOPES[1] if factor == 1e-5 else SLOPES[0], True)


@pytest.mark.parametrize("logit", [0.0, 0.1, -31.7])
def test_logits_that_tell_nothing_become_the_share(logit: float) -> None:
    wanted_NC = np.eye(3, dtype=bool)[[0, 1, 2, 0, 0]]
    found = fit_platt(np.full((5, 3), logit), wanted_NC)
    assert expit(found.slope * logit + found.intercept) == pytest.approx((5.1 / 5.2 * 5 + 0.1 / 10.2 * 10) / 15)


@pytest.mark.parametrize("shift_spread", [0.0, 2.0])
@pytest.mark.parametrize("n_labels", [1, 2])
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_give_finite_numbers(n: int, n_labels: int, shift_spread: float) -> None:
    logit_NC = np.random.default_rng(0).standard_normal((n, n_labels)) * 30 - 10
    found = fit_platt(logit_NC, np.arange(n_labels) == np.zeros((n, 1)), shift_spread=shift_spread)
    assert np.isfinite([found.slope, found.intercept, found.loss_after, found.error_after, *found.shifts]).all()


@pytest.mark.parametrize("n", [0, 3])
def test_no_true_label_is_refused(n: int) -> None:
    with pytest.raises(SpecError, match="no picture with a known label"):
        fit_platt(np.zeros((n, 3)), np.zeros((n, 3), bool))
