"""The rewrites keep the function of the tower, for every family."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.activations import QuickGELUActivation

from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import resolve
from zsic.models.tower import TorchTower, fold_quick_gelu, fuse_attention, multiply_patches
from zsic.models.weights import drop_text, load

FAMILIES = ("align", "altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2")
REWRITES = (fold_quick_gelu, fuse_attention, multiply_patches, TorchTower)


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_what_transformers_gives(
    family: str, rewrite: Callable[..., object], tiny_checkpoints: dict[str, Path]
) -> None:
    model = load(resolve(ModelSpec(name=str(tiny_checkpoints[family]))))
    drop_text(model)
    plain = copy.deepcopy(model)
    rewrite(model)
    x_B3HW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = (each.get_image_features(pixel_values=x_B3HW).pooler_output for each in (plain, model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "align"])
def test_nothing_that_costs_more_is_left(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    """ALIGN alone is a net of convolutions.  A rewrite that no longer recognises its place would go unnoticed."""
    model = load(resolve(ModelSpec(name=str(tiny_checkpoints[family]))))
    kinds = [type(block) for block in TorchTower(copy.deepcopy(model)).modules()]
    assert QuickGELUActivation not in kinds
    assert torch.nn.Conv2d not in kinds
    names = [name for name, _ in TorchTower(model).named_parameters()]
    assert names
    if family != "tipsv2":  # where attention is called in another way
        assert not [name for name in names if "q_proj" in name]


def test_half_precision_loses_nothing_by_it(tiny_checkpoints: dict[str, Path]) -> None:
    """The factors are rounded into weights of few bits; in return there are fewer roundings between."""
    checkpoint = resolve(ModelSpec(name=str(tiny_checkpoints["clip"])))
    x_B3HW = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    exact = TorchTower(load(checkpoint))(x_B3HW)
    plain = load(checkpoint, dtype=torch.bfloat16)
    drop_text(plain)
    half = x_B3HW.bfloat16()
    far = _distance(plain.get_image_features(pixel_values=half).pooler_output, exact)
    assert _distance(TorchTower(copy.deepcopy(plain))(half), exact) < 1.2 * far


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(1 - torch.nn.functional.cosine_similarity(found.float(), expected, dim=-1).mean())
