"""Histories of several drivers and workers, each decided by a seed; a seed that ever failed stays here for good."""

import os

import pytest
from support.simulation import play_history

N_HISTORIES = int(os.environ.get("ZSIC_TEST_HISTORIES", "20000"))
FIRST_SEED = int(os.environ.get("ZSIC_TEST_FIRST_SEED", "201"))


@pytest.mark.parametrize(
    "seeds",
    [
        range(1, 41),
        pytest.param(range(41, 201), marks=pytest.mark.variant),
        pytest.param(range(FIRST_SEED, FIRST_SEED + N_HISTORIES), marks=pytest.mark.faults),
    ],
    ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}",
)
def test_histories(seeds: range) -> None:
    n_published = sum(play_history(seed).n_published for seed in seeds)
    assert n_published > len(seeds)  # else they would show nothing


@pytest.mark.parametrize("seed", [53, 67, 1214, 1239, 1541])
def test_histories_that_failed_once(seed: int) -> None:
    assert play_history(seed).n_published
