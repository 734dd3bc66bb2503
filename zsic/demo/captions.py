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

_ORDER: Final = ("count", "size", "pattern", "colour", "shape")
_PREPOSITIONS: Final = {"sky": "against", "night": "at"}  # on all others
_THINGS: Final = ("shape", "thing", "object", "figure")
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def label(claim: Claim) -> str:
    """Name a claim in plain words: ``red circle``, ``three squares``, ``striped``."""
    return _in_order(claim, {name: WORDS[value][0] for name, value in claim.items()})


def phrase(claim: Claim, rng: Random) -> str:
    """Word a claim in one of many ways, without a carrier."""
    words = {name: WORDS[value][0] if rng.random() < 0.5 else rng.choice(WORDS[value]) for name, value in claim.items()}
    if set(words) == {"background"}:
        return words["background"] + rng.choice(("", " in the background"))
    if "shape" not in words and rng.random() < 0.4:
        words["shape"] = rng.choice(_THINGS)
    after = ""
    if {"shape", "colour"} <= set(words) and rng.random() < 0.12:
        after = rng.choice((" in {}", " that is {}", " coloured {}")).format(words.pop("colour"))
    return _in_order(claim, words, after)


def carrier(rng: Random) -> str:
    """Pick a carrier; one in ten has a made-up word in it, so that unknown words come to mean nothing."""
    carrier = rng.choice(CARRIERS[:10]) if rng.random() < 0.5 else rng.choice(CARRIERS)
    if rng.random() < 0.1:
        carrier = carrier.replace("{}", f"{{}} {rng.choice(('for', 'by', 'of', ''))} {_made_up_word(rng)}")
    return carrier


def caption(claim: Claim, rng: Random) -> str:
    """Word a claim and put it into a carrier."""
    return carrier(rng).format(phrase(claim, rng))


def _in_order(claim: Claim, words: Mapping[str, str], after: str = "") -> str:
    """Put the words of a claim in English order, `after` next to the noun."""
    words = dict(words)
    if "shape" in words and claim.get("count", "one") != "one":
        words["shape"] = _plural(words["shape"])
    said = " ".join(words[name] for name in _ORDER if name in words) + after
    if "background" not in words:
        return said
    if not said:
        return words["background"]
    return f"{said} {_PREPOSITIONS.get(claim['background'], 'on')} {words['background']}"


def _plural(noun: str) -> str:
    if noun.endswith(("x", "ss", "us")):
        return f"{noun}es"
    return f"{noun}s"


def _made_up_word(rng: Random) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 4)))
