"""Labels that belong together: what the scores of several add up to, and how far down an answer may go.

Shape legend: B images, C labels, M labels with children, N = C + M answers, P pairs of a label and one above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsic.core.scoring import Link

if TYPE_CHECKING:
    import torch


class Tree:
    """The labels as the lowest answers, and above them those that they are children of.

    Answers are numbered: first the labels in their order, then what is above them, in the order of the file.
    """

    def __init__(self, labels: Sequence[str], parents_C: Sequence[Sequence[str]]) -> None:
        import torch

        above = dict.fromkeys(name for parents in parents_C for name in parents)
        self.names = (*labels, *above)
        """Of the N answers."""
        place = {name: len(labels) + i for i, name in enumerate(above)}
        paths: dict[str, tuple[str, ...]] = {}
        for parents in parents_C:
            for depth, name in enumerate(parents):
                paths[name] = tuple(parents[: depth + 1])
        self.paths = (
            *((*parents, label) for label, parents in zip(labels, parents_C, strict=True)),
            *(paths[name] for name in above),
        )
        """Of each answer, from the top down to itself."""
        self.n_labels = len(labels)
        self.n_above = len(above)
        """Answers that are no labels themselves."""
        self._parent_N = torch.tensor([place[path[-2]] if len(path) > 1 else -1 for path in self.paths])
        self._depth = max(len(path) for path in self.paths)
        pairs = [(c, place[name] - len(labels)) for c, parents in enumerate(parents_C) for name in parents]
        self._label_P, self._above_P = (torch.tensor([pair[i] for pair in pairs]) for i in (0, 1))
        self.covers_NC = torch.eye(len(self.names), len(labels), dtype=torch.bool)
        """Whether each answer is the label, or one above it."""
        self.covers_NC[len(labels) + self._above_P, self._label_P] = True

    def roll_up(self, score_BC: torch.Tensor, link: Link) -> torch.Tensor:
        """The scores [B, N] of all answers: that one or another of the labels below it fits.

        Scores of labels that exclude one another (softmax) add up.  Of those that stand each for itself (sigmoid) it is
        one less the product of what is left to one, as if they were independent.
        """
        import torch

        device = score_BC.device
        part_BC = score_BC if link == "softmax" else torch.log1p(-score_BC.clamp(max=1 - 1e-7))
        sum_BM = part_BC.new_zeros(len(part_BC), self.n_above)
        sum_BM.index_add_(1, self._above_P.to(device), part_BC[:, self._label_P.to(device)])
        above_BM = sum_BM.clamp(max=1) if link == "softmax" else -torch.expm1(sum_BM)
        return torch.cat([score_BC, above_BM], dim=1)

    def descend(self, score_BN: torch.Tensor, need_N: torch.Tensor) -> torch.Tensor:
        """Answer each image [B] as low as can be: from the best at the top on to the best child, while that is enough.

        A child is an answer when its score is at least what it needs.
        """
        import torch

        parent_N = self._parent_N.to(score_BN.device)
        answer_B = torch.where(parent_N == -1, score_BN, -1.0).argmax(dim=1)
        for _ in range(1, self._depth):
            child_BN = torch.where(parent_N == answer_B[:, None], score_BN, -1.0)
            best_B = child_BN.argmax(dim=1)
            enough_B = child_BN.gather(1, best_B[:, None])[:, 0] >= need_N[best_B]
            answer_B = torch.where(enough_B, best_B, answer_B)
        return answer_B
