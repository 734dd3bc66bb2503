"""What wrong answers to posed questions cost.

B = pictures, C = captions of all questions, or of one.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor

from zsic.demo.posing import Question

_TEXT_TO_IMAGE_SHARE: Final = 0.3
_NEVER: Final = -1e4  # finite, since infinity times a share of zero is no number


def loss(logits_BC: Tensor, questions: Sequence[Question]) -> Tensor:
    """Average over the questions by their weights; the captions of `logits_BC` are those of the questions in order."""
    ends = list(accumulate(len(question.captions) for question in questions))
    by_question = logits_BC.tensor_split(ends[:-1], dim=1)
    weighted = [
        question.weight * _choice_loss(asked_BC, question)
        for asked_BC, question in zip(by_question, questions, strict=True)
    ]
    return torch.stack(weighted).sum() / sum(question.weight for question in questions)


def _choice_loss(logits_BC: Tensor, question: Question) -> Tensor:
    """Cross-entropy of choosing the caption of each picture, and, with less weight, the pictures of each caption."""
    true_BC = torch.from_numpy(question.true_BC)
    logits_BC = logits_BC.masked_fill(torch.from_numpy(~question.choice_BC), _NEVER)
    image_loss_B = logits_BC.logsumexp(dim=1) - logits_BC.masked_fill(~true_BC, -math.inf).logsumexp(dim=1)
    shares_BC = true_BC / true_BC.sum(dim=0).clamp(min=1)
    text_loss_C = -(shares_BC * logits_BC.log_softmax(dim=0)).sum(dim=0)
    return image_loss_B[true_BC.any(dim=1)].mean() + _TEXT_TO_IMAGE_SHARE * text_loss_C.mean()
