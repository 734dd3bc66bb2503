"""What an image is answered with: its best labels, and which of them, if any, count.

Shape legend: B images, C labels, N answers (labels, and in a tree those above them), K predictions kept, P pairs of an
image and a label that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from zsic.core.rules import MULTI_THRESHOLD, Rules
from zsic.core.scoring import Link, TopK
from zsic.core.tree import Tree

if TYPE_CHECKING:
    import torch

NONE = -1
"""In place of an answer: none of these."""


class Fits(NamedTuple):
    """With `mode: multi`: which labels fit which image; the images in order, the best label of each first."""

    image_P: torch.Tensor
    label_P: torch.Tensor


class Verdict(NamedTuple):
    """The answers to some images."""

    top: TopK
    answer_B: torch.Tensor
    """Int32; `NONE` where the image is rejected."""
    score_B: torch.Tensor
    """Of the answer; anything where there is none."""
    fits: Fits | None = None

    def cpu(self) -> Verdict:
        """The same on the CPU."""
        fits = None if self.fits is None else Fits(*(each.cpu() for each in self.fits))
        return Verdict(TopK(*(each.cpu() for each in self.top)), self.answer_B.cpu(), self.score_B.cpu(), fits)


def join(verdicts: Sequence[Verdict]) -> Verdict:
    """Make one of the verdicts on parts of a batch."""
    if len(verdicts) == 1:
        return verdicts[0]
    import torch

    tops, answers, scores, fits = zip(*verdicts, strict=True)
    joined = None
    if fits[0] is not None:
        begin, images = 0, []
        for verdict in verdicts:
            assert verdict.fits is not None
            images.append(verdict.fits.image_P + begin)
            begin += len(verdict.answer_B)
        joined = Fits(torch.cat(images), torch.cat([each.label_P for each in fits]))
    return Verdict(
        TopK(*(torch.cat(each) for each in zip(*tops, strict=True))), torch.cat(answers), torch.cat(scores), joined
    )


def keep_best(top: TopK, k: int) -> TopK:
    """The first `k` predictions of each image."""
    return TopK(*(each[:, :k] for each in top))


class Scored(NamedTuple):
    """All labels of some images."""

    score_BC: torch.Tensor
    logit_BC: torch.Tensor
    """What they are made of, which still tells apart what is 1 as a score."""


def judge(top: TopK, scored: Scored | None, rules: Rules, link: Link, tree: Tree | None = None) -> Verdict:
    """Apply the rules.  All scores are needed for a tree, and with `mode: multi`; two predictions for a margin."""
    import torch

    if rules.mode == "multi":
        assert scored is not None
        return _judge_each(top, scored, rules)
    answer_B, answer_score_B = top.label_index_BK[:, 0].long(), top.score_BK[:, 0]
    need_C, n_labels = None, len(rules.threshold_C)
    if rules.threshold_C:
        need_C = torch.tensor([-1.0 if need is None else need for need in rules.threshold_C], device=answer_B.device)
    if tree is not None:
        assert scored is not None
        score_BN = tree.roll_up(scored.score_BC, link)
        need_N = torch.full((len(tree.names),), rules.back_off or 0.0, device=answer_B.device)
        if need_C is not None:
            need_N[:n_labels] = torch.where(need_C < 0, need_N[:n_labels], need_C)
        answer_B = tree.descend(score_BN, need_N)
        answer_score_B = score_BN.gather(1, answer_B[:, None])[:, 0]
    good_B = torch.ones(len(answer_B), dtype=torch.bool, device=answer_B.device)
    if rules.n_answers is not None:
        good_B &= answer_B < rules.n_answers
        if tree is not None:
            good_B |= answer_B >= tree.n_labels
    if need_C is not None:
        is_label_B = answer_B < n_labels
        good_B &= ~is_label_B | (answer_score_B >= need_C[answer_B.clamp(max=n_labels - 1)])
    if rules.min_score is not None:
        good_B &= answer_score_B >= rules.min_score
    if rules.min_similarity is not None:
        good_B &= top.similarity_BK[:, 0] >= rules.min_similarity
    if rules.min_margin is not None and top.score_BK.shape[1] > 1:
        good_B &= top.score_BK[:, 0] - top.score_BK[:, 1] >= rules.min_margin
    return Verdict(top, torch.where(good_B, answer_B, NONE).int(), answer_score_B)


def _judge_each(top: TopK, scored: Scored, rules: Rules) -> Verdict:
    import torch

    score_BC, logit_BC = scored
    needs = [MULTI_THRESHOLD if need is None else need for need in rules.threshold_C] or [MULTI_THRESHOLD]
    fits_BC = score_BC >= torch.tensor(needs, device=score_BC.device)
    image_P, label_P = fits_BC.nonzero(as_tuple=True)
    # Stable sorts: equal labels keep their order, and then the images theirs.
    order_P = logit_BC[image_P, label_P].sort(descending=True, stable=True).indices
    order_P = order_P[image_P[order_P].sort(stable=True).indices]
    best_B1 = torch.where(fits_BC, logit_BC, -torch.inf).argmax(dim=1, keepdim=True)
    answer_B = torch.where(fits_BC.any(dim=1), best_B1[:, 0], NONE).int()
    return Verdict(top, answer_B, score_BC.gather(1, best_B1)[:, 0], Fits(image_P[order_P], label_P[order_P]))
