"""All label sets of a job: each image is encoded once, and each head answers in columns of its own.

Shape legend: B images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from zsic.core.predictions import Answers
from zsic.core.rules import Rules
from zsic.core.schema import AnswerColumns
from zsic.core.verdict import Verdict
from zsic.models.head import Head

if TYPE_CHECKING:
    import torch


class _Set(Protocol):
    @property
    def name(self) -> str | None: ...
    @property
    def rules(self) -> Rules: ...


def columns_of(sets: Sequence[_Set]) -> tuple[AnswerColumns, ...]:
    """The columns of each label set; of one alone they bear no name."""
    return tuple(
        AnswerColumns(
            set_name=each.name if len(sets) > 1 else None,
            has_labels=each.rules.mode == "multi",
            has_path=each.rules.has_tree,
        )
        for each in sets
    )


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads in the order of their columns, and how many predictions of each are kept."""

    heads: tuple[Head, ...]
    top_ks: tuple[int, ...]

    @property
    def columns(self) -> tuple[AnswerColumns, ...]:
        """The columns of each head."""
        return columns_of(self.heads)

    def to_device(self, device: str | torch.device) -> Heads:
        """The same, to score embeddings that are on `device`."""
        return replace(self, heads=tuple(head.to_device(device) for head in self.heads))

    def judge(self, image_BD: torch.Tensor) -> list[Verdict]:
        """Each head's verdict on unit rows."""
        return [head.judge(image_BD, k) for head, k in zip(self.heads, self.top_ks, strict=True)]

    def begin(self, n_rows: int) -> list[Answers]:
        """Each head's answers to a block, none of which is entered yet."""
        return [
            Answers(head.labels, head.answers, n_rows, k, columns, () if head.tree is None else head.tree.paths)
            for head, k, columns in zip(self.heads, self.top_ks, self.columns, strict=True)
        ]
