import re
from random import Random

import pytest

from zsic.demo.captions import CARRIERS, WORDS, caption, label
from zsic.demo.label_sets import TASKS, labels, true_label
from zsic.demo.posing import pose, values
from zsic.demo.scene import ATTRIBUTES, HELD_OUT, Scene, sample

# Longest first, so that "navy blue" is found before "blue".
PHRASES = sorted(((word, value) for value, words in WORDS.items() for word in words), key=lambda pair: -len(pair[0]))


def spoken_of(text: str) -> set[str]:
    """The values that a caption names, found by its words alone."""
    found = set()
    for word, value in PHRASES:
        text, n_found = re.subn(rf"\b{re.escape(word)}(e?s)?\b", " ", text)
        if n_found:
            found.add(value)
    return found


def test_no_word_belongs_to_two_values() -> None:
    words = [word for words in WORDS.values() for word in words]
    assert len(words) == len(set(words))
    assert set(WORDS) == {value for values in ATTRIBUTES.values() for value in values}


def test_carriers_name_nothing_themselves() -> None:
    assert {spoken_of(carrier) == set() for carrier in CARRIERS} == {True}
    assert {"This is a photo of {}.", "a photo of a {}", "{}"} <= set(CARRIERS)


def test_a_caption_says_its_claim_and_nothing_else() -> None:
    rng = Random(0)
    for _ in range(3000):
        attributes = list(sample(rng).attributes().items())
        claim = dict(rng.sample(attributes, rng.randint(1, len(attributes))))
        assert spoken_of(caption(claim, rng)) == set(claim.values())


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"shape": "circle", "colour": "red"}, "red circle"),
        ({"shape": "cross", "count": "three"}, "three crosses"),
        ({"shape": "hexagon", "count": "one"}, "one hexagon"),
        ({"pattern": "striped"}, "striped"),
        ({"background": "snow"}, "snow"),
        ({"shape": "star", "colour": "blue", "pattern": "dotted"}, "dotted blue star"),
    ],
)
def test_labels_are_plain_words(claim: dict[str, str], expected: str) -> None:
    assert label(claim) == expected


@pytest.mark.parametrize("task", TASKS)
def test_label_sets_hold_the_true_label_once(task: str) -> None:
    choices = labels(task)
    assert len(set(choices)) == len(choices)
    assert true_label(Scene("ring", "pink", "plain", "two", "small", "sand"), task) in choices


def test_training_neither_shows_nor_names_a_held_out_pair() -> None:
    rng = Random(1)
    for _ in range(20):
        scenes = [sample(rng) for _ in range(48)]
        for question in pose(values(scenes), rng, n_claims=24):
            assert question.true_BC.sum(axis=1).max() <= 1
            for text in question.captions:
                found = spoken_of(text)
                assert not any({shape, colour} <= found for shape, colour in HELD_OUT), text


def test_true_captions_agree_with_the_picture() -> None:
    rng = Random(2)
    scenes = [sample(rng) for _ in range(32)]
    for question in pose(values(scenes), rng, n_claims=24):
        for scene, true_C in zip(scenes, question.true_BC, strict=True):
            for text, true in zip(question.captions, true_C, strict=True):
                assert true == (spoken_of(text) <= set(scene.attributes().values()))
