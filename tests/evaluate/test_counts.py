from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.evaluate import counts
from zsic.evaluate.classes import count_classes
from zsic.evaluate.confusion import ConfusionCounts, most_confused
from zsic.evaluate.counts import SparseCounts
from zsic.evaluate.ranking import RankingCounts, average_precision

BATCHES = st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=8)


@given(BATCHES)
def test_numbers_are_counted(batches: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_MERGE_AT", 5)
        sparse = SparseCounts()
        for batch in batches:
            sparse.add(np.array(batch, np.int64))
        keys, n = sparse.items()
    assert dict(zip(keys.tolist(), n.tolist(), strict=True)) == Counter(key for batch in batches for key in batch)
    assert keys.tolist() == sorted(keys.tolist())


PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(-2, 9)), min_size=1, max_size=300)


@given(PAIRS, st.integers(12, 40))
def test_rare_pairs_lose_one_another_and_labels_lose_nothing(pairs: list[tuple[int, int]], most: int) -> None:
    true, answered = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_MERGE_AT", 10)
        bounded, exact = ConfusionCounts(most), ConfusionCounts()
        for begin in range(0, len(pairs), 50):
            bounded.add(true[begin : begin + 50], answered[begin : begin + 50])
            exact.add(true[begin : begin + 50], answered[begin : begin + 50])
        kept, whole = bounded.pairs(), exact.pairs()
    # Ten right ones, failed and rejected ones of ten labels, and others of twenty sides may be beyond it.
    assert len(kept[0]) <= most + 50
    for got, expected in zip(
        (each for each in vars_of(count_classes(kept, 10))), vars_of(count_classes(whole, 10)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    n_of = dict(zip(zip(*(side.tolist() for side in whole[:2]), strict=True), whole[2].tolist(), strict=True))
    shown, _ = most_confused([str(i) for i in range(10)], kept, 100)
    assert all(pair.n <= n_of[int(pair.true), int(pair.answered)] for pair in shown)


def vars_of(classes: object) -> list[np.ndarray]:
    return [getattr(classes, name) for name in ("true_C", "answered_C", "right_C")]


def test_what_is_folded_is_the_rarest() -> None:
    confusion = ConfusionCounts(2)
    n_of = {(0, 1): 50, (0, 2): 40, (1, 2): 3, (2, 1): 1}
    for (true, answered), n in n_of.items():
        confusion.add(np.full(n, true), np.full(n, answered))
    shown, _ = most_confused(["a", "b", "c"], confusion.pairs(), 10)
    assert [(pair.true, pair.answered, pair.n) for pair in shown][:1] == [("a", "b", 50)]


def test_joined_bins_rank_nearly_as_well() -> None:
    rng = np.random.default_rng(0)
    label, right = rng.integers(0, 3, 30_000), rng.random(30_000) < 0.4
    score = np.clip(rng.random(30_000) * 0.7 + right * 0.2, 0, 1).astype(np.float32)
    group = rng.integers(0, 20, 30_000)
    true = np.zeros((20, 3), np.int64)
    np.add.at(true, (group[right], label[right]), 1)
    n_rows = np.bincount(group, minlength=20)
    results = []
    for most in (1 << 20, 6000):
        ranking = RankingCounts(most)
        for rows in np.split(np.arange(30_000), 10):
            ranking.add(label[rows], score[rows], right[rows], group[rows])
        results.append(ranking.close(true, n_rows)[0])
        assert len(ranking._counts.items()[0]) <= most
    assert ranking._shift > 2
    assert results[0].value == pytest.approx(results[1].value, abs=0.015)
    assert results[0].low is not None
    assert results[0].low < results[0].value < results[0].high  # type: ignore[operator]


def test_average_precision_by_hand() -> None:
    # One label, four images, two of them its own: right, wrong; and one of its own that is not ranked.
    cells = np.array([0, 0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert average_precision(*cells, np.array([2]), 4).tolist() == [0.5 * 1 + 0.5 * 2 / 4]
    assert np.isnan(average_precision(*cells, np.array([0]), 4)).all()
