"""How common each label is: known beforehand and put into the scores, or learnt from pictures without labels.

A zero-shot model scores as if all labels were equally common.  Where they are not, ``log(share * C)`` on the logits is
all it takes (Menon et al. 2021): the shares of equally common labels change nothing.

Counting answers would give shares too, and wrong ones: pictures that are answered wrongly go to labels that look
alike, mostly from common ones to rare ones.  Expectation maximisation weighs each picture by how sure it is.  It is
one number a label, so answers to new pictures can be made with it; optimal transport (OTTER, Shin et al. 2024) answers
all pictures of a batch together so that they have given shares, and needs to be told them.

Shape legend: B rows of a batch, C labels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zsic.core.errors import SpecError

MOST_ROUNDS = 1000
TOLERANCE = 1e-4
"""Nats a row that the best shares could gain over those found, at most."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How common each label seems to be among pictures without labels."""

    share_C: npt.NDArray[np.float64]
    """Sums to 1; none is 0."""
    n_iterations: int
    converged: bool
    """Whether no shares can be better by more than `TOLERANCE` nats a row; if not, they are only on their way."""
    n_rows: int
    log_likelihood: float
    """Nats a row above that of equal shares, the prior rows left out: how much there was to learn."""


def offsets_of(share_C: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Offsets of the logits for labels of these shares, which need not sum to 1 (Menon et al. 2021).

    Under softmax, scores become the probabilities of that mix.  Under sigmoid, odds are multiplied by what a label is
    more common than the average one.  Raises `SpecError` unless all are finite and above 0.
    """
    given_C: _Floats = np.asarray(share_C, np.float64)
    wrong = np.flatnonzero(~(np.isfinite(given_C) & (given_C > 0)))
    if len(wrong):
        raise SpecError(
            f"the share of label {wrong[0] + 1} is {given_C[wrong[0]]}; use a number above 0, or leave the label out"
        )
    offset_C: npt.NDArray[np.float32] = np.log(given_C / given_C.mean()).astype(np.float32)
    return offset_C


def estimate_shares(
    logit_batches: Iterable[npt.NDArray[np.floating]],
    *,
    prior_rows: float = 0.1,
    most_rounds: int = MOST_ROUNDS,
    tolerance: float = TOLERANCE,
) -> Shares:
    """Find the shares under which the pictures' logits [B, C] are likeliest (Saerens, Latinne and Decaestecker 2002).

    The logits are read once a round, so they are a list, or something else that can be iterated again; of many rows a
    sample of some ten thousand will do.  Under either link their softmax is taken, as of labels of which each picture
    has one.  They should be calibrated: shares are as good as the scores are (Alexandari et al. 2020), and where a
    label's words mean nothing to the model, its pictures are counted as those of other labels.

    `prior_rows` more rows of each label are thought to be there, above 0, so that no share is below
    ``prior_rows / (rows + prior_rows * C)``.  The likelihood, with them, never falls, and has one maximum.  Raises
    `SpecError` if there is no row.
    """
    if isinstance(logit_batches, Iterator):
        raise TypeError("logit_batches can be read once only; give a list, or what can be iterated again")
    share_C, n_rounds = None, 0
    while True:
        pull_C, n_rows, log_likelihood = _weigh(logit_batches, share_C)
        if n_rows == 0:
            raise SpecError("there is no picture with an embedding to learn shares from")
        n_labels = len(pull_C)
        if share_C is None:
            share_C = np.full(n_labels, 1 / n_labels)
        # The derivative of the likelihood by each share; its mean, weighted by the shares, is 1.  No shares can gain
        # more than its greatest value says, as the likelihood is concave.
        rise_C = (pull_C + prior_rows / share_C) / (n_rows + prior_rows * n_labels)
        converged = bool(rise_C.max() - 1 <= tolerance)
        if converged or n_rounds == most_rounds:
            return Shares(share_C, n_rounds, converged, n_rows, log_likelihood / n_rows)
        share_C = share_C * rise_C
        share_C /= share_C.sum()
        n_rounds += 1


def _weigh(logit_batches: Iterable[npt.NDArray[np.floating]], share_C: _Floats | None) -> tuple[_Floats, int, float]:
    """Sum over rows: likelihood of each label over that of the mix [C]; rows; log-likelihood above equal shares."""
    pull_C, n_rows, log_likelihood = np.zeros(0), 0, 0.0
    for logit_BC in logit_batches:
        score_BC = np.exp(logit_BC - logit_BC.max(axis=1, keepdims=True), dtype=np.float64)
        score_BC /= score_BC.sum(axis=1, keepdims=True)
        n_labels = score_BC.shape[1]
        mix_B = score_BC.mean(axis=1) if share_C is None else score_BC @ share_C
        pull_C = (pull_C if n_rows else np.zeros(n_labels)) + (1 / mix_B) @ score_BC
        log_likelihood += float(np.log(mix_B * n_labels).sum())
        n_rows += len(logit_BC)
    return pull_C, n_rows, log_likelihood
