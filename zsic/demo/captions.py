"""The words for what a scene shows: synonyms, phrases of any granularity, and the carriers around them.

A *claim* is the part of a scene that a text speaks of: a mapping from attribute to value over some of
`scene.ATTRIBUTES`.  A text says its claim and nothing else, whatever else may be true of the picture.
"""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Final

Claim = Mapping[str, str]

# The first of each is the plain word, used in labels; no word belongs to two values.
WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "circle": ("circle", "disc", "disk", "round shape"),
        "square": ("square", "square shape", "box"),
        "triangle": ("triangle", "triangular shape"),
        "star": ("star", "pointed star"),
        "heart": ("heart", "love heart", "heart shape"),
        "cross": ("cross", "plus sign"),
        "ring": ("ring", "hoop", "annulus"),
        "crescent": ("crescent", "crescent moon", "half moon"),
        "diamond": ("diamond", "rhombus", "lozenge"),
        "hexagon": ("hexagon", "hexagonal shape"),
        "arrow": ("arrow", "pointer"),
        "bolt": ("bolt", "lightning bolt", "thunderbolt"),
        "red": ("red", "scarlet", "crimson"),
        "orange": ("orange", "tangerine", "amber"),
        "yellow": ("yellow", "lemon", "golden yellow"),
        "green": ("green", "emerald"),
        "turquoise": ("turquoise", "cyan", "teal", "aqua"),
        "blue": ("blue", "navy blue", "azure"),
        "purple": ("purple", "violet"),
        "pink": ("pink", "rose"),
        "brown": ("brown", "chocolate brown"),
        "black": ("black", "jet black"),
        "white": ("white", "ivory"),
        "grey": ("grey", "gray"),
        "plain": ("plain", "solid", "unpatterned"),
        "striped": ("striped", "stripy", "stripey"),
        "dotted": ("dotted", "spotted", "polka dot", "speckled"),
        "checked": ("checked", "chequered", "checkered", "checkerboard"),
        "one": ("one", "a single", "exactly one", "1"),
        "two": ("two", "a pair of", "exactly two", "2"),
        "three": ("three", "exactly three", "3"),
        "four": ("four", "exactly four", "4"),
        "small": ("small", "little", "tiny"),
        "medium": ("medium", "medium sized", "mid-sized"),
        "large": ("large", "big", "huge"),
        "grass": ("grass", "a lawn", "a meadow"),
        "sky": ("sky", "a cloudy sky"),
        "sand": ("sand", "a beach", "the sand"),
        "bricks": ("bricks", "a brick wall"),
        "wood": ("wood", "a wooden table", "wooden boards"),
        "snow": ("snow", "the snow"),
        "night": ("night", "nighttime"),
        "paper": ("paper", "lined paper", "a sheet of paper"),
    }
)

CARRIERS: Final = (
    "{}",
    "a {}",
    "the {}",
    "This is a photo of {}.",
    "This is a photo of a {}.",
    "this is a picture of {}",
    "a photo of {}",
    "a photo of a {}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}",
    "a picture of {}",
    "an image of a {}",
    "an image showing {}",
    "a bad photo of a {}.",
    "a good photo of the {}.",
    "a close-up photo of a {}.",
    "a blurry photo of the {}.",
    "a cropped photo of a {}.",
    "a low resolution photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a bright photo of {}.",
    "a dark photo of {}.",
    "a rendering of a {}.",
    "a drawing of {}",
    "a sketch of the {}",
    "an illustration of a {}",
    "itap of a {}.",
    "there is a {} in the scene",
    "there are {} in the picture",
    "it shows {}",
    "we can see {} here",
    "the photo contains a {}",
    "look at the {}!",
    "my {}",
    "{} in a photo",
    "example of {}",
)

_PREPOSITIONS: Final = {"sky": "against", "night": "at"}  # on all others
_THINGS: Final = ("shape", "thing", "object", "figure")
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def label(claim: Claim) -> str:
    """Name a claim in plain words: ``red circle``, ``three squares``, ``striped``."""
    return _compose(claim, {attribute: _word(value) for attribute, value in claim.items()}, None)


def phrase(claim: Claim, rng: Random) -> str:
    """Word a claim in one of many ways, without a carrier."""
    words = {
        attribute: _word(value) if rng.random() < 0.5 else rng.choice(WORDS[value])
        for attribute, value in claim.items()
    }
    return _compose(claim, words, rng)


def carrier(rng: Random) -> str:
    """Pick a carrier; one in ten has a made-up word in it, so that unknown words come to mean nothing."""
    carrier = rng.choice(CARRIERS[:10]) if rng.random() < 0.5 else rng.choice(CARRIERS)
    if rng.random() < 0.1:
        carrier = carrier.replace("{}", f"{{}} {rng.choice(('for', 'by', 'of', ''))} {_made_up_word(rng)}")
    return carrier


def caption(claim: Claim, rng: Random) -> str:
    """Word a claim and put it into a carrier."""
    return carrier(rng).format(phrase(claim, rng))


def _word(value: str) -> str:
    return WORDS[value][0]


def _compose(claim: Claim, words: Mapping[str, str], rng: Random | None) -> str:
    """Put `words` in order; with `rng`, in one of the orders English has."""
    background = words.get("background")
    adjectives = [words[name] for name in ("size", "pattern", "colour") if name in words]
    if not adjectives and "shape" not in claim and "count" not in claim:
        if background is None or rng is None or rng.random() < 0.5:
            return background or ""
        return f"{background} in the background"
    noun = words.get("shape")
    bare = noun is None and (rng is None or rng.random() < 0.6)
    if noun is None and not bare:
        assert rng is not None
        noun = rng.choice(_THINGS)
    if noun and claim.get("count", "one") != "one":
        noun = _plural(noun)
    after = ""
    if rng is not None and noun and "colour" in words and rng.random() < 0.12:
        adjectives.remove(words["colour"])
        after = rng.choice((" in {}", " that is {}", " coloured {}")).format(words["colour"])
    parts = [words.get("count"), *adjectives, noun]
    said = " ".join(part for part in parts if part) + after
    if background is not None:
        said += f" {_PREPOSITIONS.get(claim['background'], 'on')} {background}"
    return said


def _plural(noun: str) -> str:
    if noun.endswith(("x", "ss", "us")):
        return f"{noun}es"
    return f"{noun}s"


def _made_up_word(rng: Random) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 4)))
