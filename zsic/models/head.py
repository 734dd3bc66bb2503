"""How labels become a matrix: prompts encoded once, averaged, kept with what makes scores of cosines.

Shape legend: B images, C labels, D embedding width, K predictions kept, N distinct negative prompts, G distinct sets
of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from zsic.core.errors import ModelError
from zsic.core.fingerprint import canonical, six_digits
from zsic.core.labels import digest_question
from zsic.core.rules import NO_RULES, Rules
from zsic.core.scoring import Link, TopK, rank, rank_logits, similarities, soft_maximum
from zsic.core.tree import Tree
from zsic.core.verdict import Scored, Verdict, join, judge, keep_best
from zsic.models.shares import offsets_of

if TYPE_CHECKING:
    import torch

METHOD = "mean of unit prompt embeddings, renormalised"
"""The ensemble of CLIP's paper as open_clip computes it (`build_zero_shot_classifier`)."""

PROMPTS_AT_ONCE = 4096
"""Prompts encoded before they are averaged: bounds the memory at any number of labels and templates."""
SCORES_AT_ONCE = 2**24
"""Scores of a part of a batch: bounds the memory at any number of labels."""

_THE_LABELS = "stated in the labels"
_TENSORS = ("matrix_CD", "offset_C", "negative_ND")
_IMAGES_AT_ONCE = 4096  # few enough for float32 rows of 512 numbers to stay in a CPU's caches


Step = dict[str, Any]


class _Labels(Protocol):
    @property
    def name(self) -> str | None: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def prior_C(self) -> tuple[float, ...]: ...
    def prompts(self) -> tuple[tuple[str, ...], ...]: ...
    def negatives(self) -> tuple[tuple[str, ...], ...]: ...


class _Tower(Protocol):
    @property
    def digest(self) -> str: ...
    @property
    def link(self) -> Link: ...
    @property
    def scale(self) -> float: ...
    @property
    def bias(self) -> float: ...
    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, eq=False)
class Head:
    """Everything a label set is to the encoder: one unit row a label, the link to scores, and what an answer is."""

    labels: tuple[str, ...]
    matrix_CD: torch.Tensor
    """Float32."""
    scale: float
    bias: float
    link: Link
    prompts: tuple[tuple[str, ...], ...]
    """Of each label, as they were encoded."""
    model_digest: str
    name: str | None = None
    method: str = METHOD
    rules: Rules = NO_RULES
    offset_C: torch.Tensor | None = None
    """Float32, added to the logits: what is known of the labels' shares."""
    negatives: tuple[tuple[str, ...], ...] = ()
    """With `mode: multi`, the prompts for pictures without each label."""
    negative_ND: torch.Tensor | None = None
    """Float32 unit rows of the distinct ones, for a softmax model: each label competes with its own."""
    sharpness: float = 1.0
    """The model's own scale, which settles how those of one label add up; `scale` may be calibrated."""
    steps: tuple[Step, ...] = ()
    """What was done to it after it had been made of prompts, in order: names, inputs and figures in types of JSON."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, as a label set calls them."""
        return self.labels

    @property
    def digest(self) -> str:
        """SHA-256 of what the head was made of; not of its numbers, which change with the device."""
        extras = {"rules": self.rules.to_dict(), "negatives": self.negatives, "steps": self.steps}
        return digest_inputs(
            self.labels,
            self.prompts,
            self.model_digest,
            self.method,
            {key: each for key, each in extras.items() if each},
        )

    @property
    def question(self) -> str:
        """What is asked, as `LabelSet.digest`: a head that is nothing but compiled asks what its labels ask."""
        steps, prior = self.steps, ()
        if steps and steps[0].get("from") == _THE_LABELS:
            prior, steps = steps[0]["shares"], steps[1:]
        extras = {"rules": self.rules.to_dict(), "negatives": self.negatives, "prior": prior, "steps": steps}
        return digest_question(self.labels, self.prompts, extras)

    @cached_property
    def tree(self) -> Tree | None:
        """How the labels belong together, if they do."""
        return Tree(self.labels, self.rules.parents_C) if self.rules.has_tree else None

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the answers: the labels, and what is above them."""
        return self.tree.names if self.tree is not None else self.labels

    @property
    def scores_each(self) -> bool:
        """Whether each label is scored by itself, and scores need not make 1."""
        return self.link == "sigmoid" or self.negative_ND is not None

    @cached_property
    def rivals(self) -> Rivals:
        """Which negative prompts each label competes with; meant for heads that have some."""
        assert self.negative_ND is not None
        return Rivals.of(self.negatives, self.negative_ND.device)

    def to_device(self, device: str | torch.device) -> Head:
        """The same head, to score embeddings that are on `device`."""
        moved: dict[str, Any] = {
            name: None if (each := getattr(self, name)) is None else each.to(device) for name in _TENSORS
        }
        return replace(self, **moved)

    def logits(self, image_BD: torch.Tensor) -> torch.Tensor:
        """What the link makes scores of, [B, C]."""
        import torch

        with torch.inference_mode():
            return self._logits(image_BD, similarities(image_BD, self.matrix_CD))

    def rank(self, image_BD: torch.Tensor, k: int) -> TopK:
        """Answer unit rows with the `k` best labels each, whatever the rules are."""
        return keep_best(self.judge(image_BD, k).top, k)

    def judge(self, image_BD: torch.Tensor, k: int, *, scores_at_once: int = SCORES_AT_ONCE) -> Verdict:
        """Answer unit rows with the `k` best labels each, and the answer that the rules make of all scores.

        Where labels are many, a few images at a time: memory does not grow with the batch.
        """
        import torch

        n_scores = len(self.labels) if self.negative_ND is None else max(len(self.labels), len(self.negative_ND))
        n_at_once = min(max(1, scores_at_once // n_scores), _IMAGES_AT_ONCE)
        with torch.inference_mode():
            return join([self._judge(part_BD, k) for part_BD in torch.split(image_BD, n_at_once)])

    def _judge(self, image_BD: torch.Tensor, k: int) -> Verdict:
        similarity_BC = similarities(image_BD, self.matrix_CD)
        n_ranked = min(max(k, 2), len(self.labels)) if self.rules.min_margin is not None else k
        scored = None
        if self._follows_similarity and self.rules.mode == "single" and not self.rules.has_tree:
            top = rank(similarity_BC, n_ranked, self.link, scale=self.scale, bias=self.bias)
        else:
            link: Link = "sigmoid" if self.scores_each else "softmax"
            logit_BC = self._logits(image_BD, similarity_BC)
            top, score_BC = rank_logits(logit_BC, similarity_BC, n_ranked, link)
            scored = Scored(score_BC, logit_BC)
        verdict = judge(top, scored, self.rules, self.link, self.tree)
        return verdict._replace(top=keep_best(verdict.top, k))

    @property
    def _follows_similarity(self) -> bool:
        return self.offset_C is None and self.negative_ND is None

    def _logits(self, image_BD: torch.Tensor, similarity_BC: torch.Tensor) -> torch.Tensor:
        if self.negative_ND is not None:
            against_BN = similarities(image_BD, self.negative_ND)
            against_BG = soft_maximum(against_BN, self.rivals.set_NG, self.sharpness)
            similarity_BC = similarity_BC - against_BG[:, self.rivals.set_of_C]
        logit_BC = similarity_BC * self.scale + self.bias
        return logit_BC if self.offset_C is None else logit_BC + self.offset_C

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; what is not the matrix is JSON in its metadata."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file that `save` writes."""
        from safetensors.torch import save

        fields = {
            "name": self.name,
            "labels": self.labels,
            "scale": self.scale,
            "bias": self.bias,
            "link": self.link,
            "prompts": self.prompts,
            "model_digest": self.model_digest,
            "method": self.method,
            "rules": self.rules.to_dict(),
            "negatives": self.negatives,
            "sharpness": self.sharpness,
            "steps": self.steps,
        }
        tensors = {name: getattr(self, name) for name in _TENSORS}
        given = {name: each.contiguous() for name, each in tensors.items() if each is not None}
        return save(given, {"zsic.head": json.dumps(fields)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.  Raises `ModelError` if it is something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                fields = json.loads((file.metadata() or {})["zsic.head"])
                fields |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  It is no dict.
            fields["labels"] = tuple(fields["labels"])
            for name in ("prompts", "negatives"):
                fields[name] = tuple(tuple(prompts) for prompts in fields[name])
            fields["steps"] = tuple(fields["steps"])
            fields["rules"] = Rules.from_dict(fields["rules"])
            head = cls(**fields)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path} is not a head that zsic has saved: {error}") from None
        if head.matrix_CD.shape[0] != len(head.labels):
            raise ModelError(f"{path} is damaged: {len(head.labels)} labels, {head.matrix_CD.shape[0]} rows")
        return head


@dataclass(frozen=True, eq=False)
class Rivals:
    """The sets of negative prompts that labels compete with; labels that have the same share one."""

    set_NG: torch.Tensor
    """1 where a prompt belongs to a set, else 0."""
    set_of_C: torch.Tensor
    """The set of each label."""

    @classmethod
    def of(cls, negatives: tuple[tuple[str, ...], ...], device: torch.device) -> Self:
        """Find the sets; prompts are in the order of `distinct`."""
        import torch

        at = {prompt: row for row, prompt in enumerate(distinct(negatives))}
        sets = {each: column for column, each in enumerate(dict.fromkeys(negatives))}
        set_NG = torch.zeros(len(at), len(sets))
        for prompts, column in sets.items():
            set_NG[[at[prompt] for prompt in prompts], column] = 1
        return cls(set_NG.to(device), torch.tensor([sets[each] for each in negatives], device=device))


def distinct(negatives: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Each negative prompt once, in the order of labels."""
    return tuple(dict.fromkeys(prompt for prompts in negatives for prompt in prompts))


def digest_inputs(
    labels: tuple[str, ...],
    prompts: tuple[tuple[str, ...], ...],
    model_digest: str,
    method: str = METHOD,
    extras: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """`Head.digest` of a head that need not be compiled for it."""
    inputs = {"labels": labels, "prompts": prompts, "method": method, "model": model_digest, **extras}
    return hashlib.sha256(canonical(inputs)).hexdigest()


def compile_head(label_set: _Labels, text_encoder: _Tower, *, prompts_at_once: int = PROMPTS_AT_ONCE) -> Head:
    """Encode each label's prompts, make them unit vectors, average them, and make that a unit vector.

    With `mode: multi`, each label of a softmax model competes with its negative prompts: its score is what a softmax
    over it and them gives it.  Stated shares become an offset of the logits, as logit adjustment has it (Menon et al.,
    2021).
    """
    prompts = label_set.prompts()
    head = Head(
        name=label_set.name,
        labels=label_set.names,
        matrix_CD=_encode(prompts, text_encoder, prompts_at_once),
        scale=text_encoder.scale,
        bias=text_encoder.bias,
        link=text_encoder.link,
        prompts=prompts,
        model_digest=text_encoder.digest,
        rules=label_set.rules,
        negatives=label_set.negatives(),
    )
    if head.negatives and head.link == "softmax":
        each = tuple((prompt,) for prompt in distinct(head.negatives))
        head = replace(head, negative_ND=_encode(each, text_encoder, prompts_at_once), sharpness=head.scale)
    return adjust(head, label_set.prior_C, _THE_LABELS) if label_set.prior_C else head


def adjust(head: Head, share_C: Sequence[float], origin: str) -> Head:
    """The head for images of which the labels have these shares; where they are from is kept with it."""
    import torch

    share = [six_digits(share) for share in share_C]
    offset_C = torch.from_numpy(offsets_of(share))
    if head.offset_C is not None:
        offset_C = offset_C + head.offset_C
    return replace(head, offset_C=offset_C, steps=(*head.steps, {"step": "shares", "from": origin, "shares": share}))


def _encode(prompts: tuple[tuple[str, ...], ...], text_encoder: _Tower, at_once: int) -> torch.Tensor:
    import torch

    rows = [row for group in _group(prompts, at_once) for row in _average(group, text_encoder)]
    return torch.from_numpy(np.stack(rows))


def _group(prompts: tuple[tuple[str, ...], ...], at_once: int) -> Iterator[list[tuple[str, ...]]]:
    """Cut the labels into runs of at most `at_once` prompts, or of one label that has more."""
    group: list[tuple[str, ...]] = []
    n = 0
    for texts in prompts:
        if group and n + len(texts) > at_once:
            yield group
            group, n = [], 0
        group.append(texts)
        n += len(texts)
    if group:
        yield group


def _average(group: list[tuple[str, ...]], text_encoder: _Tower) -> Iterator[npt.NDArray[np.float32]]:
    """One unit row for each label of the group."""
    text_TD = text_encoder.encode([text for texts in group for text in texts])
    end = 0
    for texts in group:
        begin, end = end, end + len(texts)
        mean_D = text_TD[begin:end].mean(axis=0)
        yield cast(npt.NDArray[np.float32], mean_D / max(np.linalg.norm(mean_D), np.float32(1e-12)))
