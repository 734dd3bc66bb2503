"""Heads of the words, pictures and outputs that a user names: compiled, calibrated, adjusted.  No Ray is started.

Shape legend: N pictures, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zsic.core.errors import SpecError
from zsic.core.labels import load_labels
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec, StoreSpec, parse_labels
from zsic.evaluate.truth import Truth
from zsic.evaluate.vocabulary import Vocabulary, synonyms_of
from zsic.models.calibration import Calibration
from zsic.models.checkpoint import resolve
from zsic.models.classifier import find_labels
from zsic.models.examples import WEIGHTS, Blended, blend_examples
from zsic.models.head import Head, adjust
from zsic.models.platt import SHIFT_SPREAD, fit_platt
from zsic.models.refine import (
    Statistic,
    calibrated,
    rejecting,
    require_no,
    require_no_negatives,
    require_score,
    statistic,
    with_examples,
)
from zsic.models.shares import Shares, estimate_shares
from zsic.models.temperature import fit_temperature
from zsic.models.thresholds import Threshold, threshold_for, threshold_of_precision
from zsic.pipeline.labelled import (
    MOST_ROWS,
    Known,
    Labelled,
    Tagged,
    open_output,
    read_examples,
    read_labelled,
    read_tagged,
    sample_rows,
    vectors,
)
from zsic.storage.origin import Origin

_MOST_LOGITS = 2**27
_MOST_PAIRS = 2**25
"""Of a picture and a label: all of them are sorted."""
_NO_STORE = StoreSpec()

Labels = str | Sequence[str] | Head
"""Names, a string as `--labels` takes it, or a head that is there."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The head of a label set, and what examples did to it, where there were any."""

    head: Head
    examples: Labelled | None = None
    blended: Blended | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A head whose scores were fitted to rows with a truth, and how."""

    head: Head
    rows: Known
    calibration: Calibration
    threshold: Threshold | None = None
    """Below which an image has no label, or with `mode: multi` not this one; None if none was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """A head adjusted to the shares of its labels; how they were estimated, unless they were stated."""

    head: Head
    shares: Shares | None = None
    answered_C: npt.NDArray[np.float64] | None = None
    """Shares of the answers before."""


def compile_labels(
    labels: Labels,
    model: str | ModelSpec = "demo",
    *,
    templates: str | Sequence[str] = (),
    examples: str | Path | None = None,
    truth: Truth | None = None,
    weight: float | None = None,
    store: StoreSpec = _NO_STORE,
) -> Compiled:
    """Make the head of a label set for a model.

    `examples` move its rows: a folder with a folder of pictures for each label; or, with a `truth`, an output that has
    embeddings.  `weight` None is the best by leave-one-out.  Raises `SpecError` or `ModelError`.
    """
    checkpoint = resolve(model if isinstance(model, ModelSpec) else ModelSpec(name=model), store)
    head = labels if isinstance(labels, Head) else find_labels(labels, templates, checkpoint)
    if examples is None:
        if truth is not None or weight is not None:
            raise SpecError("a truth and a weight are for examples, and there are none")
        return Compiled(head)
    require_no_negatives(head)
    vocabulary = _vocabulary(labels, head)
    if truth is None:
        found = read_examples(Path(examples), vocabulary, checkpoint, DecodeSpec())
    else:
        found = read_labelled(open_output(str(examples), head.model_digest, store), truth, vocabulary, _most_rows(head))
    blended = blend_examples(
        head.matrix_CD.numpy(),
        found.image_ND,
        found.truth_N,
        scale=head.scale,
        weights=WEIGHTS if weight is None else (weight,),
    )
    return Compiled(with_examples(head, blended, found.digest), found, blended)


def calibrate(
    labels: Labels,
    on: str,
    truth: Truth,
    *,
    model: str | None = None,
    false_reject: float | None = None,
    precision: float | None = None,
    by: Statistic = "score",
    store: StoreSpec = _NO_STORE,
) -> Calibrated:
    """Fit a head's scores to the rows of an output whose label is known, or labels with `mode: multi`.

    With `false_reject` answers are rejected whose score, similarity or margin (`by`) is below a threshold that loses at
    most this share of right ones; with `precision`, below the least threshold that leaves this share of right ones
    among those that are kept.  Labels that are not compiled are compiled for the output's model, unless another is
    named.  Raises `SpecError` or `ModelError`.
    """
    if false_reject is not None and precision is not None:
        raise SpecError("either false_reject or precision: there is one threshold")
    head, origin = _open(labels, on, model, store)
    assert origin is not None
    require_no(head, "shares", "they would be calibrated away; calibrate first, and adjust the calibrated head")
    rows: Labelled | Tagged
    if head.rules.mode == "multi":
        require_score(by)
        rows = read_tagged(origin, truth, _vocabulary(labels, head), _most_rows(head, _MOST_PAIRS))
    else:
        rows = read_labelled(origin, truth, _vocabulary(labels, head), _most_rows(head))
    logit_NC = head.logits(torch.from_numpy(rows.image_ND)).numpy()
    calibration = _fit(head, logit_NC, rows)
    if calibration.at_bound:
        raise SpecError(
            f"{calibration.n_rows:,} rows do not tell a temperature: their scores say nothing of the truth, or are far "
            "too small or too large; is it the truth of these very rows?"
        )
    head = calibrated(head, calibration)
    if false_reject is None and precision is None:
        return Calibrated(head, rows, calibration)
    if isinstance(rows, Tagged):
        score_NC = head.logits(torch.from_numpy(rows.image_ND)).sigmoid().numpy()
        value_N, right_N = score_NC.ravel(), rows.wanted_NC.ravel()
    else:
        value_N, right_N = statistic(head, rows.image_ND, rows.truth_N, by)
    threshold = (
        threshold_for(value_N, right_N, false_reject)
        if false_reject is not None
        else threshold_of_precision(value_N, right_N, precision or 0.0)
    )
    return Calibrated(rejecting(head, by, threshold), rows, calibration, threshold)


def _fit(head: Head, logit_NC: npt.NDArray[np.float32], rows: Labelled | Tagged) -> Calibration:
    if isinstance(rows, Tagged):
        return fit_platt(logit_NC, rows.wanted_NC, shift_spread=SHIFT_SPREAD)
    if head.scores_each:
        return fit_platt(logit_NC, np.arange(len(head.labels)) == rows.truth_N[:, None])
    return fit_temperature(logit_NC, rows.truth_N)


def adjust_shares(
    labels: Labels,
    *,
    on: str | None = None,
    shares: Mapping[str, float] | None = None,
    model: str | None = None,
    store: StoreSpec = _NO_STORE,
) -> Adjusted:
    """Adjust a head to the shares that its labels have among the images: stated, or estimated from an output (EM).

    Raises `SpecError` or `ModelError`.
    """
    if (on is None) == (shares is None):
        raise SpecError("either --on, to estimate the shares from an output, or --shares, to state them")
    head, origin = _open(labels, on, model, store)
    require_no(head, "shares", "it is adjusted already; begin with the head that is not")
    if head.rules.mode == "multi" or head.rules.n_answers is not None:
        raise SpecError(
            "shares are those of labels that exclude one another and leave nothing out: not of mode: multi, nor with "
            "reject.background"
        )
    if origin is None:
        assert shares is not None
        return Adjusted(adjust(head, _in_order(shares, head.labels), "stated"))
    batches = [
        head.logits(torch.from_numpy(vectors(batch))).numpy() for batch in sample_rows(origin, (), _most_rows(head))
    ]
    found = estimate_shares(batches)
    n_C = sum(np.bincount(each.argmax(axis=1), minlength=len(head.labels)) for each in batches)
    head = adjust(head, found.share_C.tolist(), f"estimated from {origin.fingerprint[:16]}")
    return Adjusted(head, found, np.asarray(n_C, np.float64) / found.n_rows)


def _open(labels: Labels, on: str | None, model: str | None, store: StoreSpec) -> tuple[Head, Origin | None]:
    """The head, and the output it is to be fitted to; labels are compiled for that one's model unless one is named."""
    if isinstance(labels, str) and (path := parse_labels(labels).get("head")):
        labels = Head.load(path)
    if isinstance(labels, Head):
        if model is not None:
            raise SpecError(f"model: {model} is for labels that are not compiled, and these are; leave it out")
        return labels, None if on is None else open_output(on, labels.model_digest, store)
    if on is None:
        return find_labels(labels, (), resolve(ModelSpec(name=model or "demo"), store)), None
    origin = open_output(on, None, store)
    named = ModelSpec(name=origin.model, revision=origin.revision) if model is None else ModelSpec(name=model)
    checkpoint = resolve(named, store)
    return find_labels(labels, (), checkpoint), open_output(on, checkpoint.digest, store)


def _vocabulary(labels: Labels, head: Head) -> Vocabulary:
    """What truths may call the labels: their names, and where they come from a file their synonyms."""
    path = parse_labels(labels).get("path") if isinstance(labels, str) else None
    synonyms = synonyms_of(load_labels(LabelsSpec(path=path)).labels) if path else {}
    return Vocabulary(head.labels, synonyms)


def _most_rows(head: Head, most_logits: int = _MOST_LOGITS) -> int:
    """So many rows that their logits fit into half a gigabyte, or into what else there is."""
    return max(min(MOST_ROWS, most_logits // len(head.labels)), 1_000)


def _in_order(shares: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    """The shares in label order.  Raises `SpecError` unless each label has one above 0, and they make 1."""
    unknown, missing = [name for name in shares if name not in labels], [name for name in labels if name not in shares]
    if unknown or missing:
        told = f"{unknown[0]!r} is no label" if unknown else f"{missing[0]!r} has none"
        raise SpecError(f"--shares: {told}; give each of the {len(labels)} labels its share")
    if low := [name for name, share in shares.items() if not share > 0]:
        raise SpecError(f"--shares: that of {low[0]!r} is {shares[low[0]]:g}; it has to be above 0")
    total = sum(shares.values())
    if abs(total - 1) > 1e-3:
        raise SpecError(f"--shares: they add up to {total:g}; they have to make 1")
    return [shares[name] / total for name in labels]
