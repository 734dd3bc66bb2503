"""The questions that training asks about a batch of pictures: sets of captions to choose from.

Zero-shot classification is choosing one label of a set, so that is what is trained: sets for a single attribute
(``red`` or ``green`` or ...), for pairs of shape and colour, and for random combinations of attributes, worded anew
for each batch.

B = pictures, C = captions, A = attributes (in the order of `scene.ATTRIBUTES`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zsic.demo.captions import Claim, caption, carrier, phrase
from zsic.demo.scene import ATTRIBUTES, COLOURS, HELD_OUT, SHAPES, TRAINING_PAIRS, Scene

Values_BA = NDArray[np.int8]

_NAMES: Final = tuple(ATTRIBUTES)
_SHAPE, _COLOUR = _NAMES.index("shape"), _NAMES.index("colour")
_IS_HELD_OUT: Final = np.array([[(shape, colour) in HELD_OUT for colour in COLOURS] for shape in SHAPES])
_UNSAID: Final = -1
_WEIGHTS: Final = {"shape": 3.0, "pattern": 2.0, "count": 2.0}  # 1 for all others; these are hardest to see


@dataclass(frozen=True)
class Question:
    """Captions of claims that exclude one another, and which of them is true of which picture.

    A picture may have no true caption here: the question is then not asked of it.  A caption is no choice for a
    picture when both together would make a held-out pair (``star`` for a purple square): always wrong in training,
    it would teach that purple things are no stars.
    """

    captions: list[str]
    true_BC: NDArray[np.bool_]
    choice_BC: NDArray[np.bool_]
    weight: float


def values(scenes: Iterable[Scene]) -> Values_BA:
    """Encode scenes as the positions of their values in `scene.ATTRIBUTES`."""
    rows = [[ATTRIBUTES[name].index(value) for name, value in scene.attributes().items()] for scene in scenes]
    return np.array(rows, dtype=np.int8).reshape(-1, len(ATTRIBUTES))


def pose(values_BA: Values_BA, rng: Random, n_claims: int) -> list[Question]:
    """Ask about every attribute, about shape and colour, and about two random combinations of attributes.

    Sets of combinations hold about `n_claims` captions.  No caption names a held-out pair, provided that no picture
    shows one.
    """
    questions = [
        _ask([{name: value} for value in ATTRIBUTES[name]], values_BA, rng, _WEIGHTS.get(name, 1.0)) for name in _NAMES
    ]
    pairs = rng.sample(TRAINING_PAIRS, n_claims)
    questions.append(_ask([{"shape": shape, "colour": colour} for shape, colour in pairs], values_BA, rng))
    for _ in range(2):
        names = rng.sample(_NAMES, rng.choice((2, 2, 3, 3, 4, 6)))
        shown = values_BA[rng.sample(range(len(values_BA)), min(n_claims, len(values_BA)))]
        questions.append(_ask(_distinct_claims(shown, names), values_BA, rng))
    return questions


def _distinct_claims(values_BA: Values_BA, names: Sequence[str]) -> list[Claim]:
    ordered = [name for name in _NAMES if name in names]
    columns = [_NAMES.index(name) for name in ordered]
    return [
        {name: ATTRIBUTES[name][index] for name, index in zip(ordered, row, strict=True)}
        for row in np.unique(values_BA[:, columns], axis=0)
    ]


def _ask(claims: Sequence[Claim], values_BA: Values_BA, rng: Random, weight: float = 1.0) -> Question:
    """Word the claims in one common carrier, as a person's labels would be, or each in its own."""
    if rng.random() < 0.7:
        common = carrier(rng)
        captions = [common.format(phrase(claim, rng)) for claim in claims]
    else:
        captions = [caption(claim, rng) for claim in claims]
    said_CA = np.array([_said(claim) for claim in claims], dtype=np.int8)
    imagined_BCA = np.where(said_CA == _UNSAID, values_BA[:, None, :], said_CA)
    true_BC = (imagined_BCA == values_BA[:, None, :]).all(axis=-1)
    choice_BC = ~_IS_HELD_OUT[imagined_BCA[..., _SHAPE], imagined_BCA[..., _COLOUR]]
    return Question(captions, true_BC, choice_BC, weight)


def _said(claim: Mapping[str, str]) -> list[int]:
    return [ATTRIBUTES[name].index(claim[name]) if name in claim else _UNSAID for name in _NAMES]
