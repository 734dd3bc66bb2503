"""Whether intervals hold the figure of endlessly many rows as often as they say."""

import numpy as np
import pytest

from zsic.evaluate import jackknife
from zsic.evaluate.bootstrap import Bootstrap
from zsic.evaluate.calibration import CalibrationCounts
from zsic.evaluate.classes import ClassCounts, GroupedClassCounts, bootstrap_means, count_classes, jackknife_means
from zsic.evaluate.confusion import ConfusionCounts
from zsic.evaluate.coverage import CoverageCounts, risk_area
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.jackknife import N_GROUPS, deal

N_LABELS, N_ROWS, N_SAMPLES = 10, 600, 150


def joint(seed: int) -> np.ndarray:
    """Shares of true and answered label."""
    rng = np.random.default_rng(seed)
    answered = 0.7 * np.eye(N_LABELS) + 0.3 * rng.dirichlet(np.ones(N_LABELS) * 0.3, N_LABELS)
    shares: np.ndarray = rng.dirichlet(np.ones(N_LABELS) * 4)[:, None] * answered
    return shares


def held(estimate: Estimate, value: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= value <= estimate.high


def test_means_over_labels() -> None:
    shares, rng = joint(0), np.random.default_rng(1)
    counts = ClassCounts(*(np.int64(1e12 * side) for side in (shares.sum(1), shares.sum(0), np.diag(shares))))
    expected = counts.means()
    hits = np.zeros(4)
    for sample in range(N_SAMPLES):
        cell = rng.choice(N_LABELS**2, N_ROWS, p=shares.ravel())
        confusion = ConfusionCounts()
        confusion.add(cell // N_LABELS, cell % N_LABELS)
        means = bootstrap_means(confusion.pairs(), N_LABELS, Bootstrap(200, sample))
        got = (means.recall, means.precision, means.f1, means.weighted_f1)
        hits += [held(estimate, value) for estimate, value in zip(got, expected, strict=True)]
    assert (hits / N_SAMPLES > 0.88).all()
    assert (hits / N_SAMPLES < 1).any()


def test_drawing_cells_is_drawing_rows() -> None:
    """The replicates have the spread of those that weight every row for itself."""
    shares, rng = joint(2), np.random.default_rng(3)
    cell = rng.choice(N_LABELS**2, N_ROWS, p=shares.ravel())
    confusion = ConfusionCounts()
    confusion.add(cell // N_LABELS, cell % N_LABELS)
    means = bootstrap_means(confusion.pairs(), N_LABELS, Bootstrap(1000))
    by_row = []
    for _ in range(1000):
        weight = rng.poisson(1, N_ROWS)
        drawn = ConfusionCounts()
        drawn.add(np.repeat(cell // N_LABELS, weight), np.repeat(cell % N_LABELS, weight))
        by_row.append(count_classes(drawn.pairs(), N_LABELS).means())
    low, high = np.quantile(by_row, (0.025, 0.975), axis=0)
    for i, estimate in enumerate((means.recall, means.precision, means.f1, means.weighted_f1)):
        assert estimate.high is not None
        assert estimate.low is not None
        assert estimate.high - estimate.low == pytest.approx(high[i] - low[i], rel=0.12)


def answers(rng: np.random.Generator, n: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    score = rng.beta(4, 1.2, n).astype(np.float32)
    return score, rng.random(n) < score**power


@pytest.mark.parametrize(
    ("n", "power"),
    [
        (300, 1.0),
        (300, 1.3),
        pytest.param(1000, 1.1, marks=pytest.mark.variant),
        pytest.param(1000, 2.0, marks=pytest.mark.variant),
    ],
)
def test_calibration_error(n: int, power: float) -> None:
    rng = np.random.default_rng(4)
    many = CalibrationCounts()
    many.add(*answers(rng, 2_000_000, power))
    expected = 0.0 if power == 1 else many.close(Bootstrap(2)).error.value
    assert expected is not None
    hits = []
    for sample in range(N_SAMPLES):
        counts = CalibrationCounts()
        counts.add(*answers(rng, n, power))
        hits.append(held(counts.close(Bootstrap(200, sample)).error, expected))
    assert np.mean(hits) > 0.88


def test_scores_at_their_word_have_the_error_of_chance() -> None:
    rng, values, by_chance = np.random.default_rng(5), [], []
    for _ in range(100):
        counts = CalibrationCounts()
        counts.add(*answers(rng, 500, 1.0))
        calibration = counts.close(Bootstrap(50))
        values.append(calibration.error.value)
        by_chance.append(calibration.error_by_chance)
    assert np.mean(values) == pytest.approx(np.mean(by_chance), rel=0.06)


def test_area_under_risk_and_coverage() -> None:
    rng = np.random.default_rng(6)
    many = CoverageCounts()
    many.add(*answers(rng, 2_000_000, 1.3))
    expected = many.close(Bootstrap(2), 2_000_000).aurc.value
    assert expected is not None
    hits = []
    for sample in range(N_SAMPLES):
        counts = CoverageCounts()
        counts.add(*answers(rng, 500, 1.3))
        hits.append(held(counts.close(Bootstrap(200, sample), 500).aurc, expected))
    assert np.mean(hits) > 0.88


def test_ties_have_the_mean_of_all_their_orders() -> None:
    rng = np.random.default_rng(7)
    right, wrong = np.array([[3, 0, 5]]), np.array([[1, 2, 4]])
    areas = []
    for _ in range(4000):
        order = np.concatenate([rng.permutation([0] * r + [1] * w) for r, w in zip(right[0], wrong[0], strict=True)])
        areas.append((np.cumsum(order) / np.arange(1, len(order) + 1)).mean())
    assert risk_area(right, wrong)[0] == pytest.approx(np.mean(areas), abs=3e-3)


def test_many_ties_are_added_up_as_few_are() -> None:
    # Right and wrong in the same share everywhere, so the risk is that share, whatever the sum's length.
    assert risk_area(np.array([[3 * 10**6, 30, 3]]), np.array([[10**6, 10, 1]]))[0] == pytest.approx(0.25, abs=1e-12)


def test_of_images_with_several_labels() -> None:
    rng = np.random.default_rng(8)
    n_labels, n_rows = 6, 400
    share = np.linspace(0.1, 0.5, n_labels)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        # Labels of one image hang together, and so do the answers.
        kind = rng.random((n, 1))
        is_true = (rng.random((n, n_labels)) * 0.5 + kind * 0.5) < share
        hard = rng.random((n, 1)) < 0.3
        return is_true, is_true ^ (rng.random((n, n_labels)) < np.where(hard, 0.4, 0.05))

    def count(is_true: np.ndarray, is_chosen: np.ndarray) -> GroupedClassCounts:
        counts = GroupedClassCounts()
        row, label = np.nonzero(is_chosen)
        counts.add(np.nonzero(is_true), (row, label), is_true[row, label], deal(0, len(is_true)))
        return counts

    expected = jackknife_means(count(*sample(400_000)).by_group(n_labels))[0].f1.value
    assert expected is not None
    hits = [held(jackknife_means(count(*sample(n_rows)).by_group(n_labels))[0].f1, expected) for _ in range(N_SAMPLES)]
    assert np.mean(hits) > 0.88


def test_groups_are_even_and_the_same_however_rows_are_batched() -> None:
    whole = deal(0, 10_000)
    np.testing.assert_array_equal(whole, np.concatenate([deal(0, 3), deal(3, 9_997)]))
    n_G = np.bincount(whole, minlength=N_GROUPS)
    assert n_G.min() > 400
    assert n_G.max() < 600


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(9).random(N_GROUPS)
    without = (values.sum() - values) / (N_GROUPS - 1)
    estimate = jackknife.estimate(float(values.mean()), without, 20)
    assert estimate.high is not None
    half = 2.0930240544 * values.std(ddof=1) / N_GROUPS**0.5
    assert estimate.high - values.mean() == pytest.approx(half)


def test_the_seed_decides() -> None:
    confusion = ConfusionCounts()
    confusion.add(np.arange(50) % 5, np.arange(50) % 7 % 5)
    one, same, other = (bootstrap_means(confusion.pairs(), 5, Bootstrap(50, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_nothing_to_count_has_no_interval() -> None:
    assert Estimate.from_replicates(None, np.array([0.5]), 0) == Estimate(None, None, None, 0)
    assert Estimate.from_replicates(0.5, np.array([np.nan]), 1) == Estimate(0.5, None, None, 1)
    assert Estimate.from_replicates(1.0, np.ones(9), 4) == Estimate(1.0, None, None, 4), "all right tells no bounds"
    assert str(Estimate(None, None, None, 0)) == "-"
    assert str(Estimate(0.5, None, None, 1)) == "50.0 %"
    assert str(Estimate(0.912, 0.893, 0.928, 7)) == "91.2 % (89.3 to 92.8)"
