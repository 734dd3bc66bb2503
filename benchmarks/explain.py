"""Which way of explaining an answer finds the object: hottest patches against where it was drawn.

    python benchmarks/explain.py [--pictures 150] [--write]

The bundled model, the demo's pictures of shape and colour pairs that it was trained on, the true pair as the label
among all 144; the truth is the drawing's own mask.  Every way is given the same direction: from the mean of the other
labels to this one.  `on it` is the pointing game (Zhang et al., "Top-down neural attention by excitation backprop",
2016): the share of the pictures whose hottest patch is covered by the object for more than half; `touches` counts any
cover.  `AUC` is the chance that a patch of the object is hotter than one beside it.  `background` is the share of the
pictures whose hottest patch, when the label of the background is explained, is not on the object: a way that finds
what is striking, whatever is asked, fails there.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
from measure import machine, write_results

from zsic.core.preprocess import fit
from zsic.core.spec import ModelSpec
from zsic.demo.captions import label
from zsic.demo.drawing import draw_with_mask
from zsic.demo.scene import BACKGROUNDS, COLOURS, SHAPES, sample
from zsic.models.checkpoint import resolve
from zsic.models.encoder import TextEncoder
from zsic.models.explain import Explainer
from zsic.models.processor import read_geometry, read_normalisation
from zsic.models.weights import load

SIDE = 8
"""Patches."""
LEAST_TOUCHES = 0.9
PAIRS = [{"shape": shape, "colour": colour} for shape in SHAPES for colour in COLOURS]
TEMPLATE = "This is a photo of {}."

Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From normalised pixels [B, 3, H, W] and a direction for each [B, D] to the heat of the patches [B, P]."""


class Model:
    """The bundled model, with what the ways look at."""

    def __init__(self) -> None:
        checkpoint = resolve(ModelSpec())
        self.clip = load(checkpoint)
        self.clip.set_attn_implementation("eager")
        self.vision = self.clip.vision_model
        self.layers = list(self.vision.encoder.layers)
        self.geometry = read_geometry(checkpoint)
        self.normalise = read_normalisation(checkpoint).for_rows(self.geometry.size[1], torch.device("cpu"))
        self.text = TextEncoder(checkpoint)

    def contrasts(self, names: list[str]) -> torch.Tensor:
        """A direction for each label: from the mean of the others to it."""
        text_CD = torch.from_numpy(self.text.encode([TEMPLATE.format(name) for name in names]))
        return text_CD - (text_CD.sum(0) - text_CD) / (len(names) - 1)

    def embed(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.clip.get_image_features(pixel_values=x_B3HW).pooler_output, dim=-1)

    def project(self, token_BPC: torch.Tensor) -> torch.Tensor:
        joint_BPD = self.clip.visual_projection(self.vision.post_layernorm(token_BPC))
        return torch.nn.functional.normalize(joint_BPD, dim=-1)

    def watch(self, x_B3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Embeddings, what goes into each layer and comes out of the last, and the weights of attention."""
        tokens: list[torch.Tensor] = []
        weights: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(
                lambda _m, a, k: tokens.append(a[0] if a else k["hidden_states"]), with_kwargs=True
            )
            for layer in self.layers
        ]
        hooks += [
            layer.self_attn.register_forward_hook(lambda _m, _a, out: weights.append(out[1])) for layer in self.layers
        ]
        hooks.append(
            self.layers[-1].register_forward_hook(
                lambda _m, _a, out: tokens.append(out[0] if isinstance(out, tuple) else out)
            )
        )
        image_BD = self.embed(x_B3HW)
        for hook in hooks:
            hook.remove()
        return image_BD, tokens, weights


def raw_similarity(model: Model) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, tokens, _ = model.watch(x_B3HW)
            return (model.project(tokens[-1][:, 1:]) * wanted_BD[:, None]).sum(-1)

    return find


def value_path(model: Model) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, tokens, _ = model.watch(x_B3HW)
            last = model.layers[-1]
            value_BNC = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(tokens[-2])))
            return (model.project(value_BNC[:, 1:]) * wanted_BD[:, None]).sum(-1)

    return find


def gradient_times_token(model: Model, layer: int) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        image_BD, tokens, _ = model.watch(x_B3HW.clone().requires_grad_(True))
        (slope_BNC,) = torch.autograd.grad((image_BD * wanted_BD).sum(), tokens[layer])
        return (slope_BNC * tokens[layer]).sum(-1)[:, 1:].detach()

    return find


def grad_cam(model: Model) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        image_BD, tokens, _ = model.watch(x_B3HW.clone().requires_grad_(True))
        (slope_BNC,) = torch.autograd.grad((image_BD * wanted_BD).sum(), tokens[-2])
        weight_B1C = slope_BNC[:, 1:].mean(1, keepdim=True)
        return (weight_B1C * tokens[-2][:, 1:]).sum(-1).detach()

    return find


def legrad(model: Model) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        _, tokens, weights = model.watch(x_B3HW.clone().requires_grad_(True))
        heat_BP = torch.zeros(len(x_B3HW), SIDE * SIDE)
        for token_BNC, weight_BhNN in zip(tokens[1:], weights, strict=True):
            score = (model.project(token_BNC[:, :1])[:, 0] * wanted_BD).sum()
            (slope_BhNN,) = torch.autograd.grad(score, weight_BhNN, retain_graph=True)
            heat_BP += slope_BhNN.clamp(min=0).mean((1, 2))[:, 1:]
        return heat_BP

    return find


def occlusion(model: Model, box: int) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        size = x_B3HW.shape[-1] // SIDE
        heat_BHW = torch.zeros(len(x_B3HW), SIDE, SIDE)
        with torch.no_grad():
            whole_B = (model.embed(x_B3HW) * wanted_BD).sum(-1)
            for row, column in np.ndindex(SIDE, SIDE):
                covered = x_B3HW.clone()
                top, left = (max(0, at - box // 2) * size for at in (row, column))
                bottom, right = ((at + box // 2 + 1) * size for at in (row, column))
                covered[:, :, top:bottom, left:right] = 0  # the mean colour of CLIP's pictures
                heat_BHW[:, row, column] = whole_B - (model.embed(covered) * wanted_BD).sum(-1)
        return heat_BHW.flatten(1)

    return find


def shipped(explainer: Explainer) -> Way:
    def find(x_B3HW: torch.Tensor, wanted_BD: torch.Tensor) -> torch.Tensor:
        heats = [
            explainer._tower.explain(x_13HW[None], lambda _, wanted_D=wanted_D: wanted_D)
            for x_13HW, wanted_D in zip(x_B3HW, wanted_BD, strict=True)
        ]
        return torch.from_numpy(np.stack(heats)).flatten(1)

    return find


def pictures(model: Model, n: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Of each: its pair, its background, the model's pixels, and the share of each patch that is object."""
    rng = Random("explain")
    for _ in range(n):
        scene = sample(rng)
        picture, mask = draw_with_mask(scene, rng, (rng.randint(160, 320), rng.randint(160, 320)))
        mask_HW = fit(mask.convert("RGB"), model.geometry)[..., 0].astype(np.float64) / 255
        size = mask_HW.shape[0] // SIDE
        pair = PAIRS.index({"shape": scene.shape, "colour": scene.colour})
        covered_P = mask_HW.reshape(SIDE, size, SIDE, size).mean((1, 3)).ravel()
        yield pair, BACKGROUNDS.index(scene.background), fit(picture, model.geometry), covered_P


def auc(heat_P: np.ndarray, covered_P: np.ndarray) -> float:
    on, off = heat_P[covered_P > 0.5], heat_P[covered_P < 0.05]
    if not len(on) or not len(off):
        return float("nan")
    return float((on[:, None] > off[None]).mean() + (on[:, None] == off[None]).mean() / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Model()
    pair_B, background_B, pixels, covered = zip(*pictures(model, options.pictures), strict=True)
    covered_BP = np.stack(covered)
    x_B3HW = model.normalise(torch.from_numpy(np.stack(pixels)))
    object_BD = model.contrasts([label(pair) for pair in PAIRS])[list(pair_B)]
    background_BD = model.contrasts([label({"background": name}) for name in BACKGROUNDS])[list(background_B)]
    explainer = Explainer("demo", ["a", "b"])
    ways = {
        "patch tokens in the joint space": raw_similarity(model),
        "value path of the last layer (MaskCLIP, Zhou et al. 2022)": value_path(model),
        "gradient-weighted tokens (Grad-CAM, Selvaraju et al. 2017)": grad_cam(model),
        "gradient x token, last layer": gradient_times_token(model, -2),
        "gradient x token, first layer": gradient_times_token(model, 0),
        "gradient of attention (LeGrad, Bousselham et al. 2024)": legrad(model),
        "attention x gradient, rolled out (Chefer et al. 2021): shipped": shipped(explainer),
        "occlusion by a grey patch": occlusion(model, 1),
        "occlusion by grey boxes of 3 x 3 patches": occlusion(model, 3),
    }
    rows_B = np.arange(len(covered_BP))
    lines, touches_of = [], {}
    share = covered_BP > 0.5, covered_BP > 0
    chance = f"{100 * share[0].mean():.0f} % | {100 * share[1].mean():.0f} % | 0.50"
    lines.append(f"| a patch at random | {chance} | {100 * (covered_BP <= 0.5).mean():.0f} % | |")
    for name, find in ways.items():
        started = time.process_time()
        heat_BP = find(x_B3HW, object_BD).numpy()
        ms = (time.process_time() - started) / len(heat_BP) * 1e3
        at_top_B = covered_BP[rows_B, heat_BP.argmax(1)]
        elsewhere_B = covered_BP[rows_B, find(x_B3HW, background_BD).numpy().argmax(1)]
        mean_auc = np.nanmean([auc(heat_P, covered_P) for heat_P, covered_P in zip(heat_BP, covered_BP, strict=True)])
        touches_of[name] = float((at_top_B > 0).mean())
        lines.append(
            f"| {name} | {100 * (at_top_B > 0.5).mean():.0f} % | {100 * touches_of[name]:.0f} % | {mean_auc:.2f} | "
            f"{100 * (elsewhere_B <= 0.5).mean():.0f} % | {ms:.1f} |"
        )
        print(lines[-1], flush=True)
    text = (
        "# Which patches speak for a label\n\n"
        f"`benchmarks/explain.py`, {len(heat_BP)} drawn pictures, 64 patches each; {machine()}.\n"
        "The hottest patch of the object's label: covered by the object for more than half, or at all; the chance that "
        "a patch of the object is hotter than one beside it; and the hottest patch of the background's label: not on "
        "the object.\n\n"
        "| way | on it | touches | AUC | background | CPU ms a picture |\n|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )
    if options.write:
        print(write_results("explain", text).relative_to(Path.cwd()))
    (name,) = (name for name in ways if "shipped" in name)
    if touches_of[name] < LEAST_TOUCHES:
        raise SystemExit(
            f"the hottest patch touches the object in {touches_of[name]:.0%}, less than {LEAST_TOUCHES:.0%}"
        )


if __name__ == "__main__":
    main()
