"""How scores become an answer: one label or each that passes, none of them, or what several have in common.

Shape legend: C labels, the rows of a head.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

Mode = Literal["single", "multi"]

MULTI_THRESHOLD = 0.5
"""Of a label of a `multi` set that states none: more likely there than not, if scores are taken for probabilities."""
BACK_OFF = 0.5
"""Of a set with children that states none: at one half, at most one child of each parent can pass."""


@dataclass(frozen=True)
class Rules:
    """What a label set says of its answers.  The default answers each image with its best label."""

    mode: Mode = "single"
    threshold_C: tuple[float | None, ...] = ()
    """The least score of each label as an answer; empty if no label has any."""
    n_answers: int | None = None
    """Labels from there on are background: to be answered by one of them is to be rejected."""
    min_score: float | None = None
    min_similarity: float | None = None
    min_margin: float | None = None
    """Between the best and the second best score."""
    parents_C: tuple[tuple[str, ...], ...] = ()
    """Above each label, from the top down; empty if no label has any."""
    back_off: float | None = None
    """The score that a child needs to be the answer in place of its parent."""

    @property
    def reject_some(self) -> bool:
        """Whether an image may have no label."""
        given = (self.min_score, self.min_similarity, self.min_margin, *self.threshold_C)
        return self.n_answers is not None or self.mode == "multi" or any(each is not None for each in given)

    @property
    def has_tree(self) -> bool:
        """Whether labels have parents, which may be answers."""
        return bool(self.parents_C)

    def to_dict(self) -> dict[str, Any]:
        """What differs from the default, in types that JSON has."""
        default = Rules()
        return {name: value for name, value in asdict(self).items() if value != getattr(default, name)}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Self:
        """The rules that `to_dict` wrote; raises `TypeError` for anything else."""
        unknown = set(entries) - {field.name for field in fields(cls)}
        if unknown:
            raise TypeError(f"unknown rules: {', '.join(sorted(unknown))}")
        made = dict(entries)
        if "threshold_C" in made:
            made["threshold_C"] = tuple(made["threshold_C"])
        if "parents_C" in made:
            made["parents_C"] = tuple(tuple(parents) for parents in made["parents_C"])
        return cls(**made)


NO_RULES = Rules()
"""Each image gets its best label."""
