"""Drawn pictures and what they show, encoded once, for measuring what is done with embeddings.

Every other picture shows a pair of shape and colour that the bundled model's training never saw.  The same pictures are
there twice: as drawn, and shrunk to 16 pixels before the model gets them, which is hard in the way of real data.

Shape legend: N pictures, D embedding width, T texts.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from zsic.core.labels import LabelSet, load_labels
from zsic.core.preprocess import fit
from zsic.core.spec import LabelsSpec, ModelSpec
from zsic.demo.label_sets import true_label
from zsic.demo.measure import pictures
from zsic.demo.scene import Scene
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.models.head import Head, compile_head

SEED = 20261
"""Its own: neither training's nor that of the model's card."""
COARSE_PX = 16

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class Texts:
    """A text encoder that encodes each prompt once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.digest, self.link, self.scale, self.bias = encoder.digest, encoder.link, encoder.scale, encoder.bias
        self._encoder = encoder
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True, eq=False)
class World:
    """Pictures, and what they show."""

    scenes: tuple[Scene, ...]
    clear_ND: torch.Tensor
    coarse_ND: torch.Tensor
    learn_N: Bools
    """The half to learn from; the other one is to be judged by."""
    texts: Texts

    @property
    def held_out_N(self) -> Bools:
        """Whether training saw no picture of this shape in this colour."""
        return np.array([scene.held_out for scene in self.scenes])

    def only(self, at_N: Bools) -> "World":
        """Some of the pictures."""
        scenes = tuple(self.scenes[at] for at in np.flatnonzero(at_N))
        clear_ND, coarse_ND = self.clear_ND[at_N], self.coarse_ND[at_N]
        return replace(self, scenes=scenes, clear_ND=clear_ND, coarse_ND=coarse_ND, learn_N=self.learn_N[at_N])

    def truth(self, task: str, labels: Sequence[str]) -> Integers:
        """Index of each picture's true label, -1 where there is none."""
        place = {name: at for at, name in enumerate(labels)}
        return np.array([place.get(true_label(scene, task), -1) for scene in self.scenes])

    def head(self, labels: Any, **fields: Any) -> Head:
        """What a label file with these labels and fields becomes."""
        return compile_head(load({"labels": labels, **fields}), self.texts)


def load(file: dict[str, Any]) -> LabelSet:
    """Read a label file that says this."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.json"
        path.write_text(json.dumps(file), encoding="utf-8")
        return load_labels(LabelsSpec(path=str(path)))


def make_world(n_pictures: int, cache: Path | None = None) -> World:
    """Draw and encode, or take the embeddings of an earlier call from a folder."""
    checkpoint = resolve(ModelSpec())
    half = n_pictures // 2
    texts = Texts(TextEncoder(checkpoint))
    kept = None if cache is None else cache / f"drawn-{SEED}-{2 * half}-{checkpoint.digest[:16]}.npz"
    if kept is not None and kept.exists():
        arrays = np.load(kept)
        known = tuple(Scene(*row) for row in arrays["scenes"].tolist())
        return _world(known, torch.from_numpy(arrays["clear"]), torch.from_numpy(arrays["coarse"]), texts)
    encoder = ImageEncoder(checkpoint)
    scenes: list[Scene] = []
    parts: dict[str, list[torch.Tensor]] = {"clear": [], "coarse": []}
    drawn = zip(pictures(half, SEED, held_out=True), pictures(half, SEED, held_out=False), strict=True)
    pixels: dict[str, list[npt.NDArray[np.uint8]]] = {"clear": [], "coarse": []}
    for number, pair in enumerate(drawn):
        for scene, picture in pair:
            scenes.append(scene)
            height = round(COARSE_PX * picture.height / picture.width)
            pixels["clear"].append(fit(picture, encoder.geometry))
            shrunk = picture.resize((COARSE_PX, height), Image.Resampling.BOX)
            pixels["coarse"].append(fit(shrunk, encoder.geometry))
        if number % 100 == 99 or number == half - 1:
            for name, each in pixels.items():
                parts[name].append(encoder.encode(np.stack(each)))
                each.clear()
    clear_ND, coarse_ND = (torch.cat(parts[name]) for name in ("clear", "coarse"))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows = np.array([list(scene.attributes().values()) for scene in scenes])
        np.savez(kept, scenes=rows, clear=clear_ND.numpy(), coarse=coarse_ND.numpy())
    return _world(tuple(scenes), clear_ND, coarse_ND, texts)


def _world(scenes: tuple[Scene, ...], clear_ND: torch.Tensor, coarse_ND: torch.Tensor, texts: Texts) -> World:
    # Held-out pairs and others come by turns: the first two of each four are as many of either kind.
    return World(scenes, clear_ND, coarse_ND, np.arange(len(scenes)) % 4 < 2, texts)
