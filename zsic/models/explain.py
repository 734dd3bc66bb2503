"""Which patches of a picture speak for a label.

By the attention of the image tower and the gradient of the score, layer by layer (Chefer, Gur and Wolf, "Generic
Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", 2021), for one pass
forwards and one back.  What is explained is how much better the label fits than the mean of the others.  Of the ways
that `benchmarks/explain.py` compares, it is the one that tells the drawn objects from what lies around them.

Shape legend: H W patches of the picture, N tokens, h heads, C labels, D embedding width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zsic.core.errors import ModelError, SpecError
from zsic.core.preprocess import Geometry, Pixels
from zsic.core.spec import DecodeSpec, ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.classifier import Picture, find_labels, to_pixels
from zsic.models.head import Head
from zsic.models.processor import read_geometry, read_normalisation
from zsic.models.weights import drop_text, load

Heat = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Where in a picture a label was seen."""

    label: str
    score: float
    """Of this label, as `predict` gives it."""
    heat_HW: Heat
    """0 to 1, by patches of what the model sees of the picture: `Geometry.seen` tells which part that is."""


class Explainer:
    """Explains the answers of one model for one label set; made once, for any number of pictures.

    >>> Explainer("demo", ["red circle", "blue square"]).explain("photo.jpg").label  # doctest: +SKIP
    'red circle'
    """

    def __init__(
        self,
        model: str | ModelSpec = "demo",
        labels: str | Sequence[str] | Head = (),
        *,
        templates: str | Sequence[str] = (),
        decode: DecodeSpec | None = None,
    ) -> None:
        """Load the model and encode the labels, as `zsic.Classifier` does.

        Raises `SpecError`, or `ModelError` for a model whose image tower is no transformer of patches.
        """
        checkpoint = resolve(model if isinstance(model, ModelSpec) else ModelSpec(name=model)).on_this_machine()
        self._head = labels if isinstance(labels, Head) else find_labels(labels, templates, checkpoint)
        self._decode = decode or DecodeSpec()
        self.geometry: Geometry = read_geometry(checkpoint)
        self._normalise = read_normalisation(checkpoint).for_rows(self.geometry.size[1], torch.device("cpu"))
        self._tower = _Tower(checkpoint, self.geometry.size)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that can be explained."""
        return self._head.labels

    def explain(self, image: Picture, label: str | None = None) -> Explanation:
        """Explain a label of a picture, by itself the best one.

        Raises `SpecError` for a label that is none, and as `zsic.Classifier.predict` does for the picture.
        """
        if label is not None and label not in self.labels:
            raise SpecError(f"{label!r} is none of the labels; they are {', '.join(map(repr, self.labels[:20]))}")
        return self.explain_pixels(to_pixels(image, self.geometry, self._decode), label)

    def explain_pixels(self, pixels_HW3: Pixels, label: str | None = None) -> Explanation:
        """The same, of the model's pixels."""
        x_13HW = self._normalise(torch.from_numpy(np.array(pixels_HW3))[None])
        wanted = -1 if label is None else self.labels.index(label)
        top = None

        def direction(image_1D: torch.Tensor) -> torch.Tensor:
            nonlocal top, wanted
            top = self._head.rank(image_1D, len(self.labels))
            wanted = int(top.label_index_BK[0, 0]) if wanted < 0 else wanted
            return self._contrast(wanted)

        heat_HW = self._tower.explain(x_13HW, direction)
        assert top is not None
        at = top.label_index_BK[0].tolist().index(wanted)
        return Explanation(self.labels[wanted], float(top.score_BK[0, at]), heat_HW)

    def _contrast(self, at: int) -> torch.Tensor:
        """From the mean of what the label competes with to it, in the joint space."""
        matrix_CD = self._head.matrix_CD
        if self._head.negative_ND is not None:
            rivals = self._head.rivals
            mask_N = rivals.set_NG[:, rivals.set_of_C[at]]
            return matrix_CD[at] - mask_N @ self._head.negative_ND / mask_N.sum()
        n_others = len(self.labels) - 1
        return matrix_CD[at] - (matrix_CD.sum(0) - matrix_CD[at]) / n_others if n_others else matrix_CD[at]


class _Tower:
    """An image tower whose attention can be watched."""

    def __init__(self, checkpoint: Checkpoint, size: tuple[int, int]) -> None:
        self._model = load(checkpoint)
        self._model.set_attn_implementation("eager")  # the others keep no weights
        drop_text(self._model)
        self._layers = [
            module
            for module in self._model.modules()
            if all(hasattr(module, part) for part in ("q_proj", "k_proj", "v_proj"))
        ]
        patch = getattr(self._model.config.vision_config, "patch_size", None)
        if not self._layers or not isinstance(patch, int):
            raise ModelError(
                f"model.name: {checkpoint.name} is of the family {checkpoint.model_type!r}, whose image tower has no "
                "attention between patches that could be explained; use CLIP or SigLIP"
            )
        self._grid = size[0] // patch, size[1] // patch

    def explain(self, x_13HW: torch.Tensor, direction: Callable[[torch.Tensor], torch.Tensor]) -> Heat:
        """The share of each patch in what the embedding has of a direction, which may depend on the embedding."""
        with torch.enable_grad(), self._watching() as seen:
            pooled_1D = self._model.get_image_features(pixel_values=x_13HW.requires_grad_(True)).pooler_output
            image_1D = torch.nn.functional.normalize(pooled_1D, dim=-1)
            wanted_D = direction(image_1D.detach())
            attention, tokens = [weights for weights, _ in seen], seen[-1][1]
            *slopes, slope_1ND = torch.autograd.grad((image_1D[0] * wanted_D).sum(), [*attention, tokens])
        relevance_NN = torch.eye(tokens.shape[1])
        for weights_1hNN, slope_1hNN in zip(attention, slopes, strict=True):
            helpful_NN = (weights_1hNN.detach() * slope_1hNN).clamp(min=0).mean(dim=1)[0]
            relevance_NN = relevance_NN + helpful_NN @ relevance_NN
        # The class token of CLIP is all that its score is made of; SigLIP weighs all tokens.
        heat_N = slope_1ND[0].norm(dim=-1) @ relevance_NN
        height, width = self._grid
        return _spread(heat_N[-height * width :].reshape(height, width).numpy())

    @contextmanager
    def _watching(self) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
        """The weights of each layer's attention, and what it adds to the tokens, as they are computed."""
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def watch(_module: Any, _arguments: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
            seen.append((output[1], output[0]))

        hooks = [layer.register_forward_hook(watch) for layer in self._layers]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()


def _spread(heat_HW: npt.NDArray[np.float32]) -> Heat:
    """From 0 for the coldest patch to 1 for the hottest; all 0 where all are alike."""
    low, high = float(heat_HW.min()), float(heat_HW.max())
    return ((heat_HW - low) / (high - low if high > low else 1.0)).astype(np.float32)
