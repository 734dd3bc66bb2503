"""Zero-shot classification of a few images in this process, with the answers of transformers' pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, overload

import numpy as np
from PIL import Image, ImageOps

from zsic.core.errors import SourceError, SpecError
from zsic.core.labels import load_labels
from zsic.core.preprocess import Pixels, fit, prepare
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec, parse_labels
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder
from zsic.models.head_cache import find_head

Picture = str | Path | bytes | Image.Image
"""A path, the bytes of a file, or a picture that is open already."""

_BATCH_SIZE = 32


class Answer(TypedDict):
    """One label, and how well it fits."""

    score: float
    label: str


class Classifier:
    """Answers images with labels; the labels are encoded once, when it is made.

    >>> Classifier("demo", ["red circle", "blue square"]).predict("photo.jpg")  # doctest: +SKIP
    [{'score': 0.98, 'label': 'red circle'}, {'score': 0.02, 'label': 'blue square'}]
    """

    def __init__(
        self,
        model: str | ModelSpec = "demo",
        labels: str | Sequence[str] = (),
        *,
        templates: str | Sequence[str] = (),
        decode: DecodeSpec | None = None,
        top_k: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Load the model and encode the labels: names, or a string as `--labels` takes it.

        `top_k` None answers with all labels.  Raises `SpecError` or `ModelError`.
        """
        named = parse_labels(labels) if isinstance(labels, str) else {"names": tuple(labels)}
        label_set = load_labels(LabelsSpec.model_validate({**named, "templates": templates}))
        n_labels = len(label_set.names)
        if top_k is not None and not 1 <= top_k <= n_labels:
            raise SpecError(f"top_k is {top_k} but labels has {n_labels}; use 1 to {n_labels}")
        spec = model if isinstance(model, ModelSpec) else ModelSpec(name=model)
        checkpoint = resolve(spec)
        self._top_k = top_k or n_labels
        self._decode = decode or DecodeSpec()
        self._encoder = ImageEncoder(checkpoint, device=device, dtype=spec.quantize or spec.dtype)
        self._head = find_head(label_set, checkpoint).to_device(device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order that settles ties."""
        return self._head.labels

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

    def _predict(self, images: Sequence[Picture]) -> list[list[Answer]]:
        pixels_BHW3 = np.stack([self._pixels(image) for image in images])
        top = self._head.rank(self._encoder.encode(pixels_BHW3), self._top_k)
        names_BK = [[self.labels[index] for index in row] for row in top.label_index_BK.tolist()]
        return [
            [Answer(score=score, label=name) for score, name in zip(scores, names, strict=True)]
            for scores, names in zip(top.score_BK.tolist(), names_BK, strict=True)
        ]

    def _pixels(self, image: Picture) -> Pixels:
        geometry = self._encoder.geometry
        if isinstance(image, Image.Image):
            if self._decode.exif_orientation:
                image = ImageOps.exif_transpose(image)
            return fit(image, geometry)
        return prepare(_read(image), geometry, self._decode).pixels_HW3


def _read(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise SourceError(f"{image}: {error.strerror}") from None
