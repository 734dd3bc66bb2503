"""How often the model is right, by task, on pictures of pairs that training never saw.

Uses nothing but transformers' own classes and the label sets a user would write, so that what is measured is what a
user gets.  B = pictures, C = labels, D = embedding width.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from zsic.demo import MODEL_PATH
from zsic.demo.drawing import draw
from zsic.demo.label_sets import TASKS, labels, true_label
from zsic.demo.scene import Scene, sample

TEMPLATES: Final = ("This is a photo of {}.", "a photo of a {}", "{}")
_BATCH: Final = 100


@dataclass(frozen=True)
class Checkpoint:
    """A model folder, loaded as any user of transformers would."""

    model: Any
    tokenizer: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        load_processor: Any = AutoImageProcessor.from_pretrained
        return cls(CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), load_processor(folder))

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Embed pictures as unit vectors [B, D]."""
        parts = []
        for start in range(0, len(images), _BATCH):
            pixels = self.processor(images=list(images[start : start + _BATCH]), return_tensors="pt")
            parts.append(self.model.get_image_features(**pixels).pooler_output)
        return normalize(torch.cat(parts), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as unit vectors [C, D]."""
        tokens = self.tokenizer(list(texts), return_tensors="pt", padding=True)
        return normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1)


def pictures(n_pictures: int, seed: int, *, held_out: bool = True) -> Iterator[tuple[Scene, Image.Image]]:
    """Draw fresh pictures at about the sizes of the demo."""
    rng = Random(f"measure {seed} {held_out}")
    for _ in range(n_pictures):
        scene = sample(rng, held_out=held_out)
        yield scene, draw(scene, rng, (rng.randint(160, 320), rng.randint(160, 320)))


def accuracy(checkpoint: Checkpoint, image_BD: Tensor, scenes: Sequence[Scene], task: str, template: str) -> float:
    """Share of `scenes` whose best label among all of the task is the true one."""
    choices = labels(task)
    label_CD = checkpoint.embed_texts([template.format(choice) for choice in choices])
    best_B: list[int] = (image_BD @ label_CD.T).argmax(dim=-1).tolist()
    hits = [choices[best] == true_label(scene, task) for best, scene in zip(best_B, scenes, strict=True)]
    return sum(hits) / len(hits)


def measure(folder: Path, n_pictures: int, seed: int, *, held_out: bool = True) -> dict[str, dict[str, float]]:
    """Measure top-1 by task and template on `n_pictures` fresh pictures."""
    checkpoint = Checkpoint.load(folder)
    scenes, images = zip(*pictures(n_pictures, seed, held_out=held_out), strict=True)
    image_BD = checkpoint.embed_images(images)
    return {
        task: {template: accuracy(checkpoint, image_BD, scenes, task, template) for template in TEMPLATES}
        for task in TASKS
    }


def main() -> None:
    """Print top-1 by task and template as a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL_PATH)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seen", action="store_true", help="pairs that training saw, in place of the held-out ones")
    options = parser.parse_args()
    table = measure(options.folder, options.pictures, options.seed, held_out=not options.seen)
    lines = [f"| task | labels | {' | '.join(f'`{template}`' for template in TEMPLATES)} |", "|---|---|---|---|---|"]
    for task, row in table.items():
        shares = " | ".join(f"{100 * row[template]:.1f}" for template in TEMPLATES)
        lines.append(f"| {task} | {len(labels(task))} | {shares} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
