import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from zsic.core.errors import SpecError
from zsic.models.shares import TOLERANCE, estimate_shares, offsets_of

Floats = npt.NDArray[np.float64]


def _mixture(
    share_C: Sequence[float], n: int, *, gap: float = 2.0, seed: int = 0
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Points of normal bells on a line, their labels, and as logits the true log densities."""
    rng = np.random.default_rng(seed)
    truth_N = rng.choice(len(share_C), n, p=share_C)
    point_N = gap * truth_N + rng.standard_normal(n)
    return norm.logpdf(point_N[:, None], gap * np.arange(len(share_C))), truth_N


def _reference(logits: list[list[float]], prior_rows: float, n_rounds: int) -> list[float]:
    """The method as its paper has it, number by number."""
    n_labels = len(logits[0])
    shares = [1 / n_labels] * n_labels
    for _ in range(n_rounds):
        counts = [prior_rows] * n_labels
        for row in logits:
            weights = [share * math.exp(logit) for share, logit in zip(shares, row, strict=True)]
            for label, weight in enumerate(weights):
                counts[label] += weight / sum(weights)
        shares = [count / sum(counts) for count in counts]
    return shares


def _objective(share_C: Floats, logit_NC: Floats, prior_rows: float) -> float:
    """Log-likelihood above equal shares, with that of the prior rows; a sum."""
    mix_N = softmax(logit_NC, axis=1) @ share_C * len(share_C)
    return float(np.log(mix_N).sum() + prior_rows * np.log(share_C * len(share_C)).sum())


_small = st.integers(0, 2**16).map(lambda seed: 3 * np.random.default_rng(seed).standard_normal((seed % 9 + 1, 4)))


@given(logit_NC=_small, prior_rows=st.sampled_from([0.1, 1.0]), n_rounds=st.integers(0, 5))
def test_rounds_are_those_of_the_paper(logit_NC: Floats, prior_rows: float, n_rounds: int) -> None:
    found = estimate_shares([logit_NC], prior_rows=prior_rows, most_rounds=n_rounds, tolerance=-1)
    np.testing.assert_allclose(found.share_C, _reference(logit_NC.tolist(), prior_rows, n_rounds), rtol=1e-9)
    assert (found.n_iterations, found.converged, found.n_rows) == (n_rounds, False, len(logit_NC))
    assert found.log_likelihood * len(logit_NC) == pytest.approx(_objective(found.share_C, logit_NC, 0), abs=1e-9)


@given(logit_NC=_small, prior_rows=st.sampled_from([0.1, 1.0]))
def test_the_likelihood_never_falls(logit_NC: Floats, prior_rows: float) -> None:
    values = [
        _objective(
            estimate_shares([logit_NC], prior_rows=prior_rows, most_rounds=n, tolerance=-1).share_C,
            logit_NC,
            prior_rows,
        )
        for n in range(12)
    ]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert (np.diff(values) >= -1e-9).all()


@given(logit_NC=_small, prior_rows=st.sampled_from([0.1, 1.0]))
def test_when_it_converges_no_shares_are_better(logit_NC: Floats, prior_rows: float) -> None:
    found = estimate_shares([logit_NC], prior_rows=prior_rows)
    assert found.converged
    best = minimize(
        lambda x: -_objective(softmax(x), logit_NC, prior_rows),
        np.log(found.share_C),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    n = len(logit_NC) + 4 * prior_rows
    assert _objective(found.share_C, logit_NC, prior_rows) >= -best.fun - TOLERANCE * n


@pytest.mark.parametrize("share", [(0.5, 0.5), (0.9, 0.1), (0.7, 0.2, 0.08, 0.02), (1.0, 0.0, 0.0)])
def test_shares_of_a_mixture_are_found(share: tuple[float, ...]) -> None:
    """Nearer than by counting answers, where they are not equal."""
    logit_NC, truth_N = _mixture(share, 20_000)
    true_C = np.bincount(truth_N, minlength=len(share)) / len(truth_N)
    found = estimate_shares(np.array_split(logit_NC.astype(np.float32), 7))
    counted_C = np.bincount(logit_NC.argmax(axis=1), minlength=len(share)) / len(truth_N)
    error, error_counted = np.abs(found.share_C - true_C).sum(), np.abs(counted_C - true_C).sum()
    assert found.converged
    assert error < 0.03
    assert error < error_counted / 3 or len(set(share)) == 1
    assert found.share_C.sum() == pytest.approx(1)
    assert found.share_C.min() >= 0.1 / (20_000 + 0.1 * len(share)) * (1 - 1e-9)


def test_answers_of_a_mixture_become_the_best_there_are() -> None:
    share_C = (0.9, 0.07, 0.03)
    logit_NC, truth_N = _mixture(share_C, 20_000)
    found = estimate_shares([logit_NC])
    right, before, best = (
        ((logit_NC + offset).argmax(axis=1) == truth_N).mean()
        for offset in (offsets_of(found.share_C), 0.0, np.log(share_C))
    )
    assert before < best - 0.05
    assert right > best - 0.003


@given(n=st.integers(1, 20), n_labels=st.integers(1, 6), seed=st.integers(0, 99))
def test_equal_in_equal_out(n: int, n_labels: int, seed: int) -> None:
    """Each row once for each turn of the labels: no label is more common than another."""
    logit_NC = 5 * np.random.default_rng(seed).standard_normal((n, n_labels))
    found = estimate_shares([np.roll(logit_NC, turn, axis=1) for turn in range(n_labels)])
    np.testing.assert_allclose(found.share_C, 1 / n_labels)
    assert (found.n_iterations, found.converged) == (0, True)
    assert found.log_likelihood == pytest.approx(0, abs=1e-12)
    assert (offsets_of(np.full(n_labels, 0.3)) == 0).all()


@given(logit_NC=_small, shift=st.floats(-50, 50), cut=st.integers(0, 10))
def test_neither_batches_nor_a_bias_count(logit_NC: Floats, shift: float, cut: int) -> None:
    whole = estimate_shares([logit_NC])
    parts = estimate_shares([logit_NC[cut:] + shift, np.zeros((0, 4)), logit_NC[:cut] + shift])
    assert (parts.n_rows, parts.n_iterations) == (whole.n_rows, whole.n_iterations)
    np.testing.assert_allclose(parts.share_C, whole.share_C, rtol=1e-6)


def test_what_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(TypeError, match="give a list"):
        estimate_shares(iter([np.zeros((2, 2))]))


def test_no_row_is_refused() -> None:
    with pytest.raises(SpecError, match="no picture"):
        estimate_shares([np.zeros((0, 2))])


@given(weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_adjusting_gives_the_probabilities_of_the_mix(weights: list[float], seed: int) -> None:
    """Against Bayes' rule."""
    logit_C = np.random.default_rng(seed).standard_normal(len(weights))
    share_C = np.array(weights) / sum(weights)
    joint_C = share_C * np.exp(log_softmax(logit_C))
    np.testing.assert_allclose(softmax(logit_C + offsets_of(weights)), joint_C / joint_C.sum(), rtol=1e-4)


def test_the_offset_of_the_average_share_is_zero() -> None:
    assert offsets_of([2, 1, 3]).tolist() == pytest.approx([0, math.log(1 / 2), math.log(3 / 2)], abs=1e-6)


@pytest.mark.parametrize("share", [0.0, -1.0, math.nan, math.inf])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(SpecError, match="label 2 is"):
        offsets_of([0.5, share])
