"""How labels become a matrix: prompts encoded once, averaged, kept with what makes scores of cosines.

Shape legend: B images, C labels, D embedding width, K predictions kept.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from zsic.core.errors import ModelError
from zsic.core.fingerprint import canonical
from zsic.core.scoring import Link, TopK, rank, similarities

METHOD = "mean of unit prompt embeddings, renormalised"
"""The ensemble of CLIP's paper as open_clip computes it (`build_zero_shot_classifier`)."""

# Prompts encoded before they are averaged: bounds the memory at any number of labels and templates.
_PROMPTS_AT_ONCE = 4096

_SCORES_AT_ONCE = 2**24
_IMAGES_AT_ONCE = 4096  # few enough for float32 rows of 512 numbers to stay in a CPU's caches


class _Labels(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    def prompts(self) -> tuple[tuple[str, ...], ...]: ...


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


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Everything a label set is to the encoder: one unit row a label, and the link to scores."""

    name: str
    labels: tuple[str, ...]
    matrix_CD: torch.Tensor
    """Float32."""
    scale: float
    bias: float
    link: Link
    prompts: tuple[tuple[str, ...], ...]
    """Of each label, as they were encoded."""
    model_digest: str
    method: str = METHOD

    @property
    def digest(self) -> str:
        """SHA-256 of what the head was made of; not of its numbers, which change with the device."""
        return digest_inputs(self.labels, self.prompts, self.model_digest, self.method)

    def to_device(self, device: str | torch.device) -> "Head":
        """The same head, to score embeddings that are on `device`."""
        return replace(self, matrix_CD=self.matrix_CD.to(device))

    def rank(self, image_BD: torch.Tensor, k: int) -> TopK:
        """Answer each image with its `k` best labels; equally similar ones keep label order.  No row may be NaN.

        Memory is bounded at any number of labels and of images.
        """
        n_at_once = min(max(1, _SCORES_AT_ONCE // len(self.labels)), _IMAGES_AT_ONCE)
        parts = [self._rank(part_BD, k) for part_BD in torch.split(image_BD, n_at_once)]
        return parts[0] if len(parts) == 1 else TopK(*map(torch.cat, zip(*parts, strict=True)))

    def _rank(self, image_BD: torch.Tensor, k: int) -> TopK:
        return rank(similarities(image_BD, self.matrix_CD), k, self.link, scale=self.scale, bias=self.bias)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; what is not the matrix is JSON in its metadata."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file that `save` writes."""
        fields = {
            "name": self.name,
            "labels": self.labels,
            "scale": self.scale,
            "bias": self.bias,
            "link": self.link,
            "prompts": self.prompts,
            "model_digest": self.model_digest,
            "method": self.method,
        }
        return save({"matrix_CD": self.matrix_CD.contiguous()}, {"zsic.head": json.dumps(fields)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.  Raises `ModelError` if it is something else."""
        try:
            with safe_open(path, framework="pt") as file:
                fields = json.loads((file.metadata() or {})["zsic.head"])
                matrix_CD = file.get_tensor("matrix_CD")
            fields["labels"] = tuple(fields["labels"])
            fields["prompts"] = tuple(tuple(prompts) for prompts in fields["prompts"])
            return cls(matrix_CD=matrix_CD, **fields)
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path} is not a head that zsic has saved: {error}") from None


def digest_inputs(
    labels: tuple[str, ...], prompts: tuple[tuple[str, ...], ...], model_digest: str, method: str = METHOD
) -> str:
    """`Head.digest` of a head that need not be compiled for it."""
    inputs = {"labels": labels, "prompts": prompts, "method": method, "model": model_digest}
    return hashlib.sha256(canonical(inputs)).hexdigest()


def compile_head(label_set: _Labels, text_encoder: _Tower, *, name: str = "labels") -> Head:
    """Encode each label's prompts, make them unit vectors, average them, and make that a unit vector."""
    prompts = label_set.prompts()
    rows = [row for group in _group(prompts) for row in _average(group, text_encoder)]
    return Head(
        name=name,
        labels=label_set.names,
        matrix_CD=torch.from_numpy(np.stack(rows)),
        scale=text_encoder.scale,
        bias=text_encoder.bias,
        link=text_encoder.link,
        prompts=prompts,
        model_digest=text_encoder.digest,
    )


def _group(prompts: tuple[tuple[str, ...], ...]) -> Iterator[list[tuple[str, ...]]]:
    """Cut the labels into runs of at most `_PROMPTS_AT_ONCE` prompts, or of one label that has more."""
    group: list[tuple[str, ...]] = []
    n = 0
    for texts in prompts:
        if group and n + len(texts) > _PROMPTS_AT_ONCE:
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
