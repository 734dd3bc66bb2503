"""From vectors to answers: similarity, link, and the best labels.

Shape legend: B images, C labels, D embedding width, K predictions kept.
"""

from typing import Literal, NamedTuple

import torch

Link = Literal["softmax", "sigmoid"]
"""What makes scores of logits: labels that compete, or labels that stand each for itself."""


class TopK(NamedTuple):
    """The best labels of each image, best first; equal scores keep label order."""

    label_index_BK: torch.Tensor
    """int32."""
    score_BK: torch.Tensor
    similarity_BK: torch.Tensor


def similarities(image_BD: torch.Tensor, matrix_CD: torch.Tensor) -> torch.Tensor:
    """Cosines [B, C] of unit vectors, in float32 whatever came in."""
    return image_BD.float() @ matrix_CD.float().T


def link_scores(similarity_BC: torch.Tensor, link: Link, *, scale: float, bias: float = 0.0) -> torch.Tensor:
    """Scores [B, C] between 0 and 1, of ``scale * similarity + bias``."""
    logit_BC = similarity_BC * scale + bias
    return logit_BC.softmax(dim=1) if link == "softmax" else logit_BC.sigmoid()


def top_k(score_BC: torch.Tensor, similarity_BC: torch.Tensor, k: int) -> TopK:
    """Keep the `k` best labels of each image: exactly the head of a stable sort, `1 <= k <= C`.

    Scores must not be NaN.
    """
    score_BK, index_BK = score_BC.topk(k, dim=1)
    # Equal values it picks and orders by chance.  Few rows have any, and to be sure of all costs more than the scores.
    tied_B = (score_BC == score_BK[:, -1:]).sum(dim=1) > 1
    tied_B |= (score_BK[:, 1:] == score_BK[:, :-1]).any(dim=1)
    if tied_B.any():
        index_BK[tied_B] = _in_label_order(score_BC[tied_B], score_BK[tied_B, -1:], k)
    return TopK(index_BK.int(), score_BK, similarity_BC.gather(1, index_BK))


def _in_label_order(score_BC: torch.Tensor, kth_B1: torch.Tensor, k: int) -> torch.Tensor:
    """Indices [B, K] of the best, of equal ones the first; given the k-th best score, of which topk is sure."""
    above_BC = score_BC > kth_B1
    level_BC = score_BC == kth_B1
    n_level_B1 = k - above_BC.sum(dim=1, keepdim=True)
    kept_BC = above_BC | (level_BC & (level_BC.cumsum(dim=1) <= n_level_B1))
    index_BK = kept_BC.nonzero()[:, 1].view(-1, k)  # in label order
    order_BK = score_BC.gather(1, index_BK).sort(dim=1, descending=True, stable=True).indices
    return index_BK.gather(1, order_BK)
