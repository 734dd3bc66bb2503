"""Train the bundled model: ``python -m zsic.demo.training --output DIR --minutes M --seed S``.

Running the same command again resumes where the last checkpoint was.  `DIR/model` is always complete and loadable; it
holds the running average of the weights, which is the better model.

B = pictures, C = captions, D = embedding width, H, W = rows, columns, 3 = red, green, blue.
"""

import argparse
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import backward
from torch.nn.functional import normalize, pad
from transformers import CLIPModel, CLIPTokenizer

from zsic.demo.album import IMAGE_SIDE_PX, load_album
from zsic.demo.architecture import make_model, make_processor
from zsic.demo.captions import caption
from zsic.demo.loss import loss
from zsic.demo.measure import measure
from zsic.demo.posing import Question, pose
from zsic.demo.scene import sample
from zsic.demo.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)

_BATCH: Final = 96
_CLAIMS: Final = 32
_PEAK_RATE: Final = 2e-3
_WARM_UP_STEPS: Final = 300
_AVERAGE_STEPS: Final = 300
_MOST_SCALE: Final = math.log(100)
_PATCHES_SHARE: Final = 0.5  # of the loss on the mean of the patches, which finds shapes before the class token does
_SHIFT_PX: Final = 3
_TEXT_GROUP: Final = 48
_CHECKPOINT_S: Final = 300


def main() -> None:
    """Train a small CLIP on drawn pictures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    Training(options.output, options.seed).run(60 * options.minutes, options.pictures)


class Training:
    """A model in training, its average, and where they are kept."""

    def __init__(self, output: Path, seed: int) -> None:
        self._output, self._seed = output, seed
        resumes = (output / "checkpoint.pt").exists()
        self._tokenizer = CLIPTokenizer.from_pretrained(output / "model") if resumes else _tokenizer(seed)
        self._processor = make_processor()
        self._model = make_model(self._tokenizer)
        self._model.set_attn_implementation("eager")  # with bfloat16 on a CPU, 3 times as fast as sdpa
        self._average = CLIPModel(self._model.config)
        self._average.load_state_dict(self._model.state_dict())
        self._optimizers = _optimizers(self._model)
        self._step, self._seconds = 0, 0.0
        if resumes:
            self._resume()

    def run(self, seconds: float, n_pictures: int) -> None:
        """Train until `seconds` of training have passed in all, over this and earlier runs."""
        pixels_NHW3, values_NA = load_album(self._output / "album", n_pictures, self._seed)
        saved_at, losses = self._seconds, []
        while self._seconds < seconds:
            started = time.perf_counter()
            rng = Random(f"training {self._seed} {self._step}")
            chosen = sorted(rng.sample(range(n_pictures), _BATCH))
            pixels_B3HW = torch.from_numpy(pixels_NHW3[chosen]).permute(0, 3, 1, 2)
            self._set_rate(self._seconds / seconds)
            losses.append(self._learn(_augment(pixels_B3HW, rng), pose(values_NA[chosen], rng, _CLAIMS)))
            self._step += 1
            self._seconds += time.perf_counter() - started
            if self._step % 100 == 0:
                logger.info("step %d, %.0f s, loss %.3f", self._step, self._seconds, fmean(losses))
                losses.clear()
            if self._seconds - saved_at > _CHECKPOINT_S or self._seconds >= seconds:
                self.save()
                saved_at = self._seconds

    def save(self) -> None:
        """Write the model folder and the checkpoint, and log how good the model is."""
        folder = self._output / "model"
        halves = {name: tensor.half() for name, tensor in self._average.state_dict().items()}
        self._average.save_pretrained(folder, state_dict=halves)
        self._tokenizer.save_pretrained(folder)
        self._processor.save_pretrained(folder)
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self._step,
            "seconds": self._seconds,
        }
        torch.save(state, self._output / "checkpoint.new")
        (self._output / "checkpoint.new").replace(self._output / "checkpoint.pt")
        for task, shares in measure(folder, 400, seed=1).items():
            logger.info("held out, %s: %s", task, " ".join(f"{share:.3f}" for share in shares.values()))

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self._output / "checkpoint.pt", weights_only=True)
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._step, self._seconds = state["step"], state["seconds"]

    def _set_rate(self, progress: float) -> None:
        warm_up = min(1.0, (self._step + 1) / _WARM_UP_STEPS)
        rate = _PEAK_RATE * warm_up * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, progress))))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _learn(self, pixels_B3HW: Tensor, questions: Sequence[Question]) -> float:
        """Take one step; return the loss."""
        texts = [text for question in questions for text in question.captions]
        with torch.autocast("cpu", torch.bfloat16):
            image = self._model.get_image_features(pixel_values=pixels_B3HW)
            patches_BD = self._project(image.last_hidden_state[:, 1:].mean(dim=1))
            text_CD = self._encode(texts)
        scaled_CD = self._model.logit_scale.exp() * normalize(text_CD.float(), dim=-1)
        losses = [
            loss(normalize(views_BD.float(), dim=-1) @ scaled_CD.T, questions)
            for views_BD in (image.pooler_output, patches_BD)
        ]
        self._model.zero_grad()
        backward(losses[0] + _PATCHES_SHARE * losses[1])
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=_MOST_SCALE)
            share = max(1 / _AVERAGE_STEPS, 10 / (self._step + 10))
            for average, current in zip(self._average.parameters(), self._model.parameters(), strict=True):
                average.lerp_(current, share)
        return losses[0].item()

    def _project(self, tokens_BW: Tensor) -> Tensor:
        """Do to any tokens of the image tower what CLIP does to the class token."""
        projected: Tensor = self._model.visual_projection(self._model.vision_model.post_layernorm(tokens_BW))
        return projected

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts in groups of like length: most are short, and padding costs as much as words."""
        ids = self._tokenizer(texts, truncation=True)["input_ids"]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        parts = []
        for start in range(0, len(ids), _TEXT_GROUP):
            group = [ids[index] for index in order[start : start + _TEXT_GROUP]]
            padded = self._tokenizer.pad({"input_ids": group}, return_tensors="pt")["input_ids"]
            parts.append(self._model.get_text_features(input_ids=padded).pooler_output)
        return torch.cat(parts)[torch.tensor(order).argsort()]


def _optimizers(model: CLIPModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the towers, which learns in fewer steps; AdamW for everything else."""
    matrices: list[Tensor] = []
    tables: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            matrices.append(parameter)
        else:
            (tables if parameter.ndim > 1 else vectors).append(parameter)
    decayed = [{"params": tables, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(decayed, betas=(0.9, 0.98), fused=True),
    ]


def _augment(pixels_B3HW: Tensor, rng: Random) -> Tensor:
    """Mirror, shift and relight pictures, then normalise them as the processor does."""
    mirrored = torch.rand(len(pixels_B3HW), 1, 1, 1) < 0.5
    levels = pixels_B3HW.float() / 255
    levels = torch.where(mirrored, levels.flip(-1), levels)
    left, top = rng.randint(0, 2 * _SHIFT_PX), rng.randint(0, 2 * _SHIFT_PX)
    padded = pad(levels, (_SHIFT_PX,) * 4, mode="reflect")
    levels = padded[:, :, top : top + IMAGE_SIDE_PX, left : left + IMAGE_SIDE_PX]
    levels = levels * torch.empty(len(levels), 1, 1, 1).uniform_(0.94, 1.06)
    processor = make_processor()
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    return (levels.clamp(0, 1) - mean[:, None, None]) / std[:, None, None]


def _tokenizer(seed: int) -> CLIPTokenizer:
    rng = Random(f"tokenizer {seed}")
    texts = []
    for _ in range(20_000):
        attributes = list(sample(rng).attributes().items())
        texts.append(caption(dict(rng.sample(attributes, rng.randint(1, len(attributes)))), rng))
    return train_tokenizer(texts)


if __name__ == "__main__":
    main()
