"""From vectors to answers: similarity, link, and the best labels.

Shape legend: B images, C labels, D embedding width, K predictions kept, J = K or K + 1, N values, G sets of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Link = Literal["softmax", "sigmoid"]
"""What makes scores of logits: labels that compete, or labels that stand each for itself."""


class TopK(NamedTuple):
    """The best labels of each image, best first; equally similar ones keep label order."""

    label_index_BK: torch.Tensor
    """int32."""
    score_BK: torch.Tensor
    similarity_BK: torch.Tensor


def similarities(image_BD: torch.Tensor, matrix_CD: torch.Tensor) -> torch.Tensor:
    """Cosines [B, C] of unit vectors, in float32 whatever came in."""
    return image_BD.float() @ matrix_CD.float().T


def soft_maximum(value_BN: torch.Tensor, set_NG: torch.Tensor, sharpness: float) -> torch.Tensor:
    """About the largest value of each set, and a little more where several are near it, [B, G].

    That is ``log(sum(exp(sharpness * value))) / sharpness``; of one value, the value.  `set_NG` is 1 where a value
    belongs to a set and 0 elsewhere.
    """
    import torch  # seconds, for what only names a link

    best_B1 = value_BN.max(dim=1, keepdim=True).values
    # In float64, as a set may lie so far below the best value that float32 has no number for its sum.
    sum_BG = ((value_BN - best_B1).double() * sharpness).exp() @ set_NG.double()
    return best_B1 + (sum_BG.clamp(min=torch.finfo(sum_BG.dtype).tiny).log() / sharpness).float()


def rank(similarity_BC: torch.Tensor, k: int, link: Link, *, scale: float, bias: float = 0.0) -> TopK:
    """Answer each image with its `k` best labels, `1 <= k <= C`; overwrites the similarities.  None may be NaN.

    Scores are the link of ``scale * similarity + bias``, and `scale` is positive: so the order is that of the
    similarities, and only what is kept needs a score.
    """
    similarity_BK, index_BK = top_k(similarity_BC, k)
    if link == "sigmoid":
        score_BK = (similarity_BK * scale + bias).sigmoid()
    else:
        best_B1 = similarity_BK[:, :1]
        sum_B1 = similarity_BC.sub_(best_B1).mul_(scale).exp_().sum(dim=1, keepdim=True)
        score_BK = ((similarity_BK - best_B1) * scale).exp() / sum_B1
    return TopK(index_BK.int(), score_BK, similarity_BK)


def rank_logits(logit_BC: torch.Tensor, similarity_BC: torch.Tensor, k: int, link: Link) -> tuple[TopK, torch.Tensor]:
    """Answer each image with its `k` best labels where logits do not follow from similarities alone; and all scores.

    `similarity_BC` is only looked up.  None may be NaN.
    """
    _, index_BK = top_k(logit_BC, k)
    score_BC = logit_BC.sigmoid() if link == "sigmoid" else logit_BC.softmax(dim=1)
    return TopK(index_BK.int(), score_BC.gather(1, index_BK), similarity_BC.gather(1, index_BK)), score_BC


def top_k(value_BC: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` largest values of each row and where they are: exactly the head of a stable sort.  None may be NaN."""
    # One more than is kept: equal values are picked and ordered by chance, and this one tells whether any were left.
    value_BJ, index_BJ = value_BC.topk(min(k + 1, value_BC.shape[1]), dim=1)
    tied_B = (value_BJ[:, 1:] == value_BJ[:, :-1]).any(dim=1)
    value_BK, index_BK = value_BJ[:, :k], index_BJ[:, :k]
    if tied_B.any():
        index_BK[tied_B] = _in_label_order(value_BC[tied_B], value_BK[tied_B, -1:], k)
    return value_BK, index_BK


def _in_label_order(value_BC: torch.Tensor, kth_B1: torch.Tensor, k: int) -> torch.Tensor:
    """Indices [B, K] of the largest, of equal ones the first; given the k-th largest, of which topk is sure."""
    above_BC = value_BC > kth_B1
    level_BC = value_BC == kth_B1
    n_level_B1 = k - above_BC.sum(dim=1, keepdim=True)
    kept_BC = above_BC | (level_BC & (level_BC.cumsum(dim=1) <= n_level_B1))
    index_BK = kept_BC.nonzero()[:, 1].view(-1, k)  # in label order
    order_BK = value_BC.gather(1, index_BK).sort(dim=1, descending=True, stable=True).indices
    return index_BK.gather(1, order_BK)
