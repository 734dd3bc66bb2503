"""Zero-shot classification of a few images in this process, with the answers of transformers' pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, overload

import numpy as np
from PIL import Image, ImageOps

from zsic.core.errors import SourceError, SpecError
from zsic.core.labels import load_labels
from zsic.core.preprocess import Geometry, Pixels, fit, prepare
from zsic.core.rules import NO_RULES
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec, parse_labels
from zsic.core.verdict import NONE, Verdict
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder
from zsic.models.head import Head
from zsic.models.head_cache import find_head, load_head

Picture = str | Path | bytes | Image.Image
"""A path, the bytes of a file, or a picture that is open already."""

_BATCH_SIZE = 32


class Answer(TypedDict):
    """One label, and how well it fits."""

    score: float
    label: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules of a label set make of an image."""

    label: str | None
    """The answer; None where the image is none of these."""
    score: float | None
    predictions: list[Answer]
    """The best labels, whatever the rules."""
    labels: tuple[str, ...] | None = None
    """With `mode: multi`: every label that fits, best first."""
    path: tuple[str, ...] | None = None
    """Where labels have parents: from the top down to the answer."""


class Classifier:
    """Answers images with labels; the labels are encoded once, when it is made.

    >>> Classifier("demo", ["red circle", "blue square"]).predict("photo.jpg")  # doctest: +SKIP
    [{'score': 0.98, 'label': 'red circle'}, {'score': 0.02, 'label': 'blue square'}]
    """

    def __init__(
        self,
        model: str | ModelSpec = "demo",
        labels: str | Sequence[str] | Head = (),
        *,
        templates: str | Sequence[str] = (),
        decode: DecodeSpec | None = None,
        top_k: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Load the model and encode the labels: names, a string as `--labels` takes it, or a head that is there.

        `top_k` None answers with all labels.  Raises `SpecError` or `ModelError`.
        """
        spec = model if isinstance(model, ModelSpec) else ModelSpec(name=model)
        checkpoint = resolve(spec)
        head = labels if isinstance(labels, Head) else find_labels(labels, templates, checkpoint)
        n_labels = len(head.labels)
        if top_k is not None and not 1 <= top_k <= n_labels:
            raise SpecError(f"top_k is {top_k} but labels has {n_labels}; use 1 to {n_labels}")
        self._top_k = top_k or n_labels
        self._decode = decode or DecodeSpec()
        self._encoder = ImageEncoder(checkpoint, device=device, dtype=spec.quantize or spec.dtype)
        self._head = head.to_device(device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order that settles ties."""
        return self._head.labels

    @property
    def has_rules(self) -> bool:
        """Whether an answer may be something else than the best label."""
        return self._head.rules != NO_RULES

    @overload
    def predict(  # type: ignore[overload-overlap]  # str and bytes are sequences too
        self, images: Picture
    ) -> list[Answer]: ...
    @overload
    def predict(self, images: Sequence[Picture]) -> list[list[Answer]]: ...
    def predict(self, images: Picture | Sequence[Picture]) -> list[Answer] | list[list[Answer]]:
        """Answers best first: a list for one image, a list of lists for a sequence of images.

        Raises `SourceError` for a file that cannot be read, `zsic.core.decode.DecodeError` for one that is no
        picture.
        """
        if isinstance(images, Picture):
            return self._predict([images])[0]
        answers = []
        for begin in range(0, len(images), _BATCH_SIZE):
            answers += self._predict(images[begin : begin + _BATCH_SIZE])
        return answers

    def judge(self, images: Sequence[Picture]) -> list[Judgement]:
        """Answer images as the label set's rules say: rejected, with several labels, or with a parent of the best.

        Raises as `predict` does.
        """
        judgements: list[Judgement] = []
        for begin in range(0, len(images), _BATCH_SIZE):
            verdict = self._judge(images[begin : begin + _BATCH_SIZE])
            judgements += [self._tell(verdict, i) for i in range(len(verdict.answer_B))]
        return judgements

    def _judge(self, images: Sequence[Picture]) -> Verdict:
        geometry = self._encoder.geometry
        pixels_BHW3 = np.stack([to_pixels(image, geometry, self._decode) for image in images])
        return self._head.judge(self._encoder.encode(pixels_BHW3), self._top_k).cpu()

    def _predict(self, images: Sequence[Picture]) -> list[list[Answer]]:
        verdict = self._judge(images)
        return [self._predictions(verdict, i) for i in range(len(images))]

    def _predictions(self, verdict: Verdict, at: int) -> list[Answer]:
        indices, scores = (each[at].tolist() for each in verdict.top[:2])
        return [Answer(score=score, label=self.labels[index]) for score, index in zip(scores, indices, strict=True)]

    def _tell(self, verdict: Verdict, at: int) -> Judgement:
        head, answer = self._head, int(verdict.answer_B[at])
        has_answer, fits = answer != NONE, None
        if verdict.fits is not None:
            fits = tuple(self.labels[i] for i in verdict.fits.label_P[verdict.fits.image_P == at].tolist())
        return Judgement(
            label=head.answers[answer] if has_answer else None,
            score=float(verdict.score_B[at]) if has_answer else None,
            predictions=self._predictions(verdict, at),
            labels=fits,
            path=head.tree.paths[answer] if head.tree is not None and has_answer else None,
        )


def to_pixels(image: Picture, geometry: Geometry, spec: DecodeSpec) -> Pixels:
    """The model's pixels of a picture.  Raises `SourceError` or `zsic.core.decode.DecodeError`."""
    if isinstance(image, Image.Image):
        return fit(ImageOps.exif_transpose(image) if spec.exif_orientation else image, geometry)
    return prepare(_read(image), geometry, spec).pixels_HW3


def find_labels(labels: str | Sequence[str], templates: str | Sequence[str], checkpoint: Checkpoint) -> Head:
    """Compile labels, given by name or as `--labels` takes them, or load a head.  Raises `SpecError`."""
    named = parse_labels(labels) if isinstance(labels, str) else {"names": tuple(labels)}
    spec = LabelsSpec.model_validate({**named, "templates": templates})
    if spec.head is None:
        return find_head(load_labels(spec), checkpoint)
    if spec.templates:
        raise SpecError(f"labels.templates: {spec.head} has its prompts already; compile it again with others")
    return load_head(spec.head, checkpoint)


def _read(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise SourceError(f"{image}: {error.strerror}") from None
