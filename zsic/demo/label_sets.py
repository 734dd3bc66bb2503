"""The label sets that the demo poses: single attributes and combinations of them, in plain words."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from zsic.demo.captions import Claim, label
from zsic.demo.scene import ATTRIBUTES, Scene

TASKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{name: (name,) for name in ATTRIBUTES},
        "colour-shape": ("shape", "colour"),
        "count-shape": ("shape", "count"),
        "pattern-colour-shape": ("shape", "colour", "pattern"),
    }
)
"""Task -> the attributes that its labels name."""


def labels(task: str = "colour-shape") -> list[str]:
    """List every label of a task of `TASKS`: 144 from ``red circle`` on, unless another task is asked for."""
    return [label(claim) for claim in _combinations(TASKS[task])]


def true_label(scene: Scene, task: str = "colour-shape") -> str:
    """Name the one label of `labels(task)` that is true of `scene`."""
    attributes = scene.attributes()
    return label({name: attributes[name] for name in TASKS[task]})


def _combinations(attributes: Sequence[str]) -> list[Claim]:
    combinations: list[Claim] = [{}]
    for name in attributes:
        combinations = [{**claim, name: value} for claim in combinations for value in ATTRIBUTES[name]]
    return combinations
