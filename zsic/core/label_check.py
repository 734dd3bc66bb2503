"""What is allowed in a label set and yet seldom meant.

Shape legend: C labels.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from zsic.core.labels import DEFAULT_NEGATIVE, LabelSet
from zsic.core.rules import MULTI_THRESHOLD

NEAR_DUPLICATE = 0.97
"""Cosine of two heads from which on their labels are near-duplicates; their images are divided by chance."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at; nothing is refused for it."""

    kind: Literal[
        "one_label",
        "same_letters",
        "same_prompts",
        "same_name",
        "no_place",
        "too_long",
        "near_duplicate",
        "shares",
        "no_threshold",
        "own_negative",
    ]
    labels: tuple[str, ...]
    message: str


def check_labels(
    label_set: LabelSet,
    *,
    count_tokens: Callable[[str], int] | None = None,
    token_limit: int | None = None,
    similarity_CC: npt.NDArray[np.floating] | None = None,
    near_duplicate: float = NEAR_DUPLICATE,
    contrasted: bool = False,
) -> list[Finding]:
    """Look for what is seldom meant; tokens and similarities only where what they need is given.

    `contrasted` tells that the model compares each label with its negative prompts, which then count as prompts.
    `count_tokens` includes the start and end marks, as `token_limit` does.  `similarity_CC` holds the cosine
    of each pair of labels, in label order; its lower half is not read.
    """
    findings = [
        *_find_one_label(label_set),
        *_find_twins(label_set),
        *_find_shared_names(label_set),
        *_find_lost_synonyms(label_set),
        *_find_shares(label_set),
        *(_find_no_threshold(label_set) if contrasted else ()),
        *(_find_own_negatives(label_set) if contrasted else ()),
    ]
    if count_tokens is not None and token_limit is not None:
        findings += _find_too_long(label_set, count_tokens, token_limit, contrasted)
    if similarity_CC is not None:
        findings += _find_near_duplicates(label_set.names, similarity_CC, near_duplicate)
    return findings


def _find_one_label(label_set: LabelSet) -> Iterator[Finding]:
    if len(label_set.names) == 1 and label_set.rules.mode == "single":
        yield Finding(
            "one_label",
            label_set.names,
            f"{label_set.names[0]!r} is the only label, and so every image's answer; add what else there is",
        )


def _find_twins(label_set: LabelSet) -> Iterator[Finding]:
    """Find labels that differ in case or white space only, and labels that are described alike."""
    for twins in _groups(label_set.names, [_fold(name) for name in label_set.names]):
        yield Finding("same_letters", twins, f"{_listed(twins)} differ in case or white space only; keep one")
    prompts = [frozenset(prompts) for prompts in label_set.prompts()]
    for twins in _groups(label_set.names, prompts):
        yield Finding(
            "same_prompts",
            twins,
            f"{_listed(twins)} have the same prompts, so the first of them always wins; tell them apart",
        )


def _find_shared_names(label_set: LabelSet) -> Iterator[Finding]:
    """Find names that several labels go by: as their own, or as a synonym."""
    owners: defaultdict[str, dict[str, None]] = defaultdict(dict)
    spelled: dict[str, str] = {}
    for label in label_set.labels:
        for name in (label.name, *label.synonyms):
            owners[_fold(name)][label.name] = None
            spelled.setdefault(_fold(name), name)
    own = {_fold(name): name for name in label_set.names}
    for name, labels in owners.items():
        # Labels that differ in case alone are found as twins.
        if len(labels) > 1 and len({_fold(label) for label in labels}) > 1:
            listed = _listed(tuple(labels))
            where = "is a label, and a synonym of another" if name in own else "is a synonym of both"
            yield Finding(
                "same_name", tuple(labels), f"{listed}: {spelled[name]!r} {where}; their images are divided by chance"
            )


def _find_lost_synonyms(label_set: LabelSet) -> Iterator[Finding]:
    """Find labels whose own prompts have no place for a name, so that their synonyms are in none."""
    for label in label_set.labels:
        if label.synonyms and label.prompts and not any("{}" in prompt for prompt in label.prompts):
            yield Finding(
                "no_place",
                (label.name,),
                f"{label.name!r}: its prompts have no {{}} for a name, so its synonyms are in none of them; write {{}} "
                "where the name stands",
            )


def _find_shares(label_set: LabelSet) -> Iterator[Finding]:
    """Say that scores are not the model's alone."""
    if label_set.prior_C:
        yield Finding(
            "shares", (), "labels have priors: scores are adjusted to these shares, which rare labels will feel"
        )


def _find_no_threshold(label_set: LabelSet) -> Iterator[Finding]:
    """Find labels that pass at a score which, made of a comparison with negative prompts, means nothing."""
    need_C = label_set.rules.threshold_C or (None,) * len(label_set.names)
    named = zip(label_set.names, need_C, label_set.negatives(), strict=True)
    names = tuple(name for name, need, against in named if need is None and against == DEFAULT_NEGATIVE)
    if names:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        yield Finding(
            "no_threshold",
            names,
            f"{names[0]!r}{more}: no `threshold`, and so an answer from {MULTI_THRESHOLD:g} on, which most images may "
            "reach, as such scores only compare a label with its negative prompts; name what it is mistaken for as "
            "`negative`, or learn from labelled images with `zsic labels calibrate`",
        )


def _find_own_negatives(label_set: LabelSet) -> Iterator[Finding]:
    """Find labels that compete with a prompt of their own."""
    for name, own, against in zip(label_set.names, label_set.prompts(), label_set.negatives(), strict=True):
        if both := [prompt for prompt in against if prompt in own]:
            yield Finding(
                "own_negative",
                (name,),
                f"{name!r}: {both[0]!r} is its prompt, and its negative prompt, too, so that it can never be sure; "
                "write what else there may be",
            )


def _find_too_long(
    label_set: LabelSet, count_tokens: Callable[[str], int], token_limit: int, contrasted: bool
) -> Iterator[Finding]:
    negatives = label_set.negatives() if contrasted else ((),) * len(label_set.names)
    for name, own, against in zip(label_set.names, label_set.prompts(), negatives, strict=True):
        prompts = (*own, *against)
        tokens = {prompt: count_tokens(prompt) for prompt in prompts}
        too_long = [prompt for prompt in prompts if tokens[prompt] > token_limit]
        if too_long:
            longest = max(too_long, key=lambda prompt: tokens[prompt])
            yield Finding(
                "too_long",
                (name,),
                f"{name!r}: {len(too_long)} of {len(prompts)} prompts exceed the limit, {token_limit} tokens"
                f" and lose their ends; the longest has {tokens[longest]}: {longest!r}",
            )


def _find_near_duplicates(
    names: Sequence[str], similarity_CC: npt.NDArray[np.floating], near_duplicate: float
) -> Iterator[Finding]:
    for row, name in enumerate(names):
        close = np.flatnonzero(similarity_CC[row, row + 1 :] >= near_duplicate)
        for column in (row + 1 + close).tolist():
            yield Finding(
                "near_duplicate",
                (name, names[column]),
                f"{name!r} and {names[column]!r} look alike to the model (cosine "
                f"{similarity_CC[row, column]:.3f}); join them, or describe the difference in their prompts",
            )


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


def _groups(names: Sequence[str], keys: Sequence[Hashable]) -> list[tuple[str, ...]]:
    """Group the names whose keys are equal; groups of one are left out."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    for name, key in zip(names, keys, strict=True):
        groups[key].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)
