"""What a demo picture can show, and which of it training never sees.

A picture shows one to four like objects; six attributes describe it.  Pairs of shape and colour in `HELD_OUT` are
drawn for measurement only: neither a picture nor a caption of such a pair occurs in training, so that naming one
is zero-shot.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from random import Random
from types import MappingProxyType
from typing import Final

SHAPES: Final = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
    "diamond",
    "hexagon",
    "arrow",
    "bolt",
)


@dataclass(frozen=True)
class Shades:
    """The shades that go by one colour name: ranges of hue (degrees), saturation and value (0 to 1)."""

    hue_deg: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


COLOURS: Final[Mapping[str, Shades]] = MappingProxyType(
    {
        "red": Shades((-7, 6), (0.82, 1.0), (0.72, 1.0)),
        "orange": Shades((23, 32), (0.88, 1.0), (0.94, 1.0)),
        "yellow": Shades((51, 58), (0.80, 1.0), (0.92, 1.0)),
        "green": Shades((105, 138), (0.65, 1.0), (0.45, 0.80)),
        "turquoise": Shades((172, 184), (0.70, 1.0), (0.75, 0.95)),
        "blue": Shades((214, 236), (0.75, 1.0), (0.70, 1.0)),
        "purple": Shades((270, 286), (0.60, 0.95), (0.50, 0.80)),
        "pink": Shades((324, 342), (0.35, 0.58), (0.94, 1.0)),
        "brown": Shades((17, 27), (0.65, 0.85), (0.32, 0.46)),
        "black": Shades((0, 360), (0.0, 0.15), (0.02, 0.10)),
        "white": Shades((0, 360), (0.0, 0.03), (0.96, 1.0)),
        "grey": Shades((0, 360), (0.0, 0.06), (0.44, 0.56)),
    }
)

PATTERNS: Final = ("plain", "striped", "dotted", "checked")
COUNTS: Final = ("one", "two", "three", "four")
SIZES: Final = ("small", "medium", "large")
BACKGROUNDS: Final = ("grass", "sky", "sand", "bricks", "wood", "snow", "night", "paper")

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "pattern": PATTERNS,
        "count": COUNTS,
        "size": SIZES,
        "background": BACKGROUNDS,
    }
)

# Two colours of each shape and two shapes of each colour: 24 of the 144 pairs.
_HELD_OUT_COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "circle": ("red", "turquoise"),
    "square": ("blue", "brown"),
    "triangle": ("yellow", "grey"),
    "star": ("purple", "white"),
    "heart": ("green", "black"),
    "cross": ("orange", "pink"),
    "ring": ("brown", "yellow"),
    "crescent": ("red", "black"),
    "diamond": ("green", "pink"),
    "hexagon": ("purple", "orange"),
    "arrow": ("turquoise", "white"),
    "bolt": ("blue", "grey"),
}

HELD_OUT: Final = frozenset((shape, colour) for shape, colours in _HELD_OUT_COLOURS.items() for colour in colours)
_HELD_OUT_PAIRS: Final = tuple(sorted(HELD_OUT))
TRAINING_PAIRS: Final = tuple(
    (shape, colour) for shape in SHAPES for colour in COLOURS if (shape, colour) not in HELD_OUT
)

# An object that a person could not see against the background is not a fair question.
_INVISIBLE: Final = frozenset(
    {
        ("green", "grass"),
        ("white", "sky"),
        ("red", "bricks"),
        ("brown", "bricks"),
        ("brown", "wood"),
        ("white", "snow"),
        ("black", "night"),
        ("white", "paper"),
    }
)

# Larger ones would not fit side by side.
_SIZES_OF_COUNT: Final[Mapping[str, tuple[str, ...]]] = {
    "one": SIZES,
    "two": ("small", "medium"),
    "three": ("small",),
    "four": ("small",),
}
_COUNT_WEIGHTS: Final = (55, 15, 15, 15)


@dataclass(frozen=True)
class Scene:
    """What one picture shows; all objects in it are alike.  Field names are the keys of `ATTRIBUTES`, in order."""

    shape: str
    colour: str
    pattern: str
    count: str
    size: str
    background: str

    @property
    def n_objects(self) -> int:
        return COUNTS.index(self.count) + 1

    @property
    def held_out(self) -> bool:
        """Whether training never sees this shape in this colour."""
        return (self.shape, self.colour) in HELD_OUT

    def attributes(self) -> dict[str, str]:
        return dict(zip(ATTRIBUTES, astuple(self), strict=True))


def sample(rng: Random, *, held_out: bool = False) -> Scene:
    """Draw a scene; its (shape, colour) is one of the held-out pairs, or of the others.

    Every pair is as likely as any other, so that no shape is the more likely one given a colour.
    """
    shape, colour = rng.choice(_HELD_OUT_PAIRS if held_out else TRAINING_PAIRS)
    count = rng.choices(COUNTS, _COUNT_WEIGHTS)[0]
    visible = [background for background in BACKGROUNDS if (colour, background) not in _INVISIBLE]
    return Scene(
        shape=shape,
        colour=colour,
        pattern=rng.choice(PATTERNS),
        count=count,
        size=rng.choice(_SIZES_OF_COUNT[count]),
        background=rng.choice(visible),
    )
