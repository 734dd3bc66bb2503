"""Heads made of more than words: with examples, calibrated, and silent where they had better be.

Each gives a new head and leaves word of itself in its steps.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from zsic.core.errors import SpecError
from zsic.core.fingerprint import six_digits
from zsic.core.verdict import NONE
from zsic.models.calibration import Calibration
from zsic.models.examples import Blended
from zsic.models.head import Head
from zsic.models.thresholds import Threshold

Statistic = Literal["score", "similarity", "margin"]
"""What an answer is rejected by: its score, its cosine, or the distance of its score from the second best."""


def with_examples(head: Head, blended: Blended, digest: str) -> Head:
    """The head with the rows that examples have moved, if they have; `digest` tells which they were."""
    if blended.weight == 0:
        return head
    require_no_negatives(head)
    step = {"step": "examples", "digest": digest, "weight": blended.weight}
    moved = replace(head, matrix_CD=torch.from_numpy(blended.matrix_CD), steps=(*head.steps, step))
    return _shift(moved, torch.from_numpy(blended.offset_C)) if blended.offset_C.any() else moved


def calibrated(head: Head, calibration: Calibration) -> Head:
    """The head with scores that are as often right as they say."""
    require_no(head, "shares", "they would be calibrated away; calibrate first, and adjust the calibrated head")
    slope, intercept = six_digits(calibration.slope), six_digits(calibration.intercept)
    shifts = [six_digits(shift) for shift in calibration.shifts]
    step = {"step": "calibration", "slope": slope, "intercept": intercept} | ({"shifts": shifts} if shifts else {})
    made = replace(
        head,
        scale=head.scale * slope,
        bias=head.bias * slope + intercept,
        offset_C=None if head.offset_C is None else head.offset_C * slope,
        steps=(*head.steps, step),
    )
    return _shift(made, torch.tensor(shifts)) if shifts else made


def rejecting(head: Head, by: Statistic, threshold: Threshold) -> Head:
    """The head that gives no label to what is below a threshold; with `mode: multi`, no label that is."""
    value = float(threshold.value)  # not rounded, or it would lose more than it says
    if head.rules.mode == "multi":
        require_score(by)
        return replace(head, rules=replace(head.rules, threshold_C=(value,) * len(head.labels)))
    least: Any = {f"min_{by}": value}
    return replace(head, rules=replace(head.rules, **least))


def statistic(
    head: Head, image_ND: npt.NDArray[np.float32], truth_N: npt.NDArray[np.integer], by: Statistic
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The score, similarity or margin of each picture's answer, and whether the answer is right.

    An answer above the true label, in a tree, is right.  What background takes is not.
    """
    rules = replace(head.rules, min_score=None, min_similarity=None, min_margin=None)
    verdict = replace(head, rules=rules).judge(torch.from_numpy(image_ND), min(2, len(head.labels)))
    answer_N = verdict.answer_B.numpy()
    right_N = answer_N == truth_N
    if head.tree is not None:
        right_N = (answer_N != NONE) & head.tree.covers_NC.numpy()[answer_N, truth_N]
    score_NK, similarity_NK = verdict.top.score_BK.numpy(), verdict.top.similarity_BK.numpy()
    match by:
        case "score":
            return verdict.score_B.numpy(), right_N
        case "similarity":
            return similarity_NK[:, 0], right_N
        case "margin":
            if score_NK.shape[1] < 2:
                raise SpecError(
                    "a margin is the distance of the best score from the second, and there is one label only"
                )
            return score_NK[:, 0] - score_NK[:, 1], right_N


def require_score(by: Statistic) -> None:
    """Raise `SpecError` unless answers are rejected by their score."""
    if by != "score":
        raise SpecError(f"mode is multi, in which labels have a threshold of their score, and not of {by}")


def require_no_negatives(head: Head) -> None:
    """Raise `SpecError` if labels are contrasted with negative prompts."""
    if head.negative_ND is not None:
        raise SpecError(
            "mode is multi, and a softmax model contrasts each label with its negative prompts; examples have none"
        )


def require_no(head: Head, step: str, why: str) -> None:
    """Raise `SpecError` if something was done to a head before which rules out what is to be done."""
    if any(each["step"] == step for each in head.steps):
        raise SpecError(f"this head has {step}: {why}")


def _shift(head: Head, offset_C: torch.Tensor) -> Head:
    return replace(head, offset_C=offset_C if head.offset_C is None else head.offset_C + offset_C)


def describe(head: Head) -> list[tuple[str, str]]:
    """What a head is, in words, for people."""
    rules = head.rules
    n_prompts = sum(len(prompts) for prompts in head.prompts)
    rows = [
        ("labels", f"{len(head.labels):,}"),
        ("prompts", f"{n_prompts:,}"),
        ("scores", f"{head.link}, scale {head.scale:.4g}" + (f", bias {head.bias:.4g}" if head.bias else "")),
        ("model", head.model_digest[:16]),
        ("digest", head.digest[:16]),
    ]
    if rules.mode == "multi":
        contrast = ", contrasted with its negative prompts" if head.negative_ND is not None else ""
        rows.append(("mode", f"multi: each label that passes its threshold{contrast}"))
    if rules.has_tree:
        rows.append(
            (
                "hierarchy",
                f"{len(head.answers) - len(head.labels):,} labels above others; a child needs {rules.back_off:g}",
            )
        )
    for name in ("min_score", "min_similarity", "min_margin"):
        if (value := getattr(rules, name)) is not None:
            rows.append(("reject", f"{name} {value:g}"))
    if rules.n_answers is not None:
        rows.append(("reject", f"by {len(head.labels) - rules.n_answers:,} background labels"))
    rows += [("after that", _describe_step(step)) for step in head.steps]
    return rows


def _describe_step(step: dict[str, Any]) -> str:
    match step["step"]:
        case "shares":
            return f"adjusted to shares ({step['from']})"
        case "examples":
            return f"moved towards examples, weight {step['weight']:g}"
        case "calibration":
            return (
                f"calibrated: temperature {1 / step['slope']:.3g}"
                + (f", shift {step['intercept']:+.3g}" if step["intercept"] else "")
                + (", and a shift a label" if "shifts" in step else "")
            )
        case other:
            return str(other)
