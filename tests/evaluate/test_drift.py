import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from zsic.evaluate.drift import AnswerCounts, label_drift, score_drift

SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80)
NAMES = ["cat", "dog", "cow"]


def counts(labels: list[int], scores: list[float] | None = None) -> AnswerCounts:
    made = AnswerCounts()
    made.add(np.array(labels, np.int64), np.array(scores or [0.5] * len(labels), np.float32))
    return made


@given(SCORES, SCORES)
def test_the_ks_statistic_lies_within_its_bounds(one: list[float], other: list[float]) -> None:
    drift = score_drift(counts([0] * len(one), one), counts([0] * len(other), other))
    assert drift is not None
    exact = max(
        abs(sum(score <= at for score in one) / len(one) - sum(score <= at for score in other) / len(other))
        for at in [*one, *other]
    )
    assert drift.ks_low - 1e-12 <= exact <= drift.ks_high + 1e-12


def test_the_bounds_of_many_scores_are_narrow() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.beta(5, 1, 20_000).astype(np.float32), rng.beta(4, 1, 20_000).astype(np.float32)
    drift = score_drift(counts([0] * 20_000, one.tolist()), counts([0] * 20_000, other.tolist()))
    assert drift is not None
    assert drift.ks_low <= stats.ks_2samp(one, other).statistic <= drift.ks_high <= drift.ks_low + 0.01
    assert drift.mean_output == pytest.approx(one.mean(), abs=1e-6)
    assert sum(drift.n_output) == sum(drift.n_against) == 20_000
    assert drift.n_output == tuple(np.histogram(one, 20, (0, 1))[0].tolist())


LABELS = st.lists(st.integers(0, 2), min_size=1, max_size=60)


@given(LABELS, LABELS)
def test_total_variation_is_what_would_have_to_change(one: list[int], other: list[int]) -> None:
    drift = label_drift(NAMES, counts(one), counts(other))
    assert drift is not None
    more = sum(max(0.0, one.count(c) / len(one) - other.count(c) / len(other)) for c in range(3))
    assert drift.total_variation == pytest.approx(more, abs=1e-12)
    assert drift.stability_index >= 0
    changes = [abs(share.change) for share in drift.shares]
    assert changes == sorted(changes, reverse=True)
    assert sum(share.n_output for share in drift.shares) == len(one)


def test_the_stability_index_is_the_definition() -> None:
    drift = label_drift(NAMES[:2], counts([0] * 7000 + [1] * 3000), counts([0] * 5000 + [1] * 5000))
    assert drift is not None
    assert drift.stability_index == pytest.approx(0.2 * np.log(0.7 / 0.5) - 0.2 * np.log(0.3 / 0.5), abs=1e-4)


def test_two_samples_of_the_same_differ_by_what_chance_gives() -> None:
    rng = np.random.default_rng(1)
    shares = [0.6, 0.3, 0.1]
    drifts = [
        label_drift(NAMES, *(counts(rng.choice(3, 500, p=shares).tolist()) for _ in range(2))) for _ in range(400)
    ]
    got = [drift.total_variation for drift in drifts if drift]
    assert np.mean(got) == pytest.approx(np.mean([drift.by_chance for drift in drifts if drift]), rel=0.05)


def test_without_answers_there_is_no_drift() -> None:
    assert label_drift(NAMES, AnswerCounts(), counts([0])) is None
    assert score_drift(counts([0]), AnswerCounts()) is None
