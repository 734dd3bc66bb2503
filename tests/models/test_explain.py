"""What speaks for a label: where the heat lies, and that it is about the label."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from zsic.core.errors import ModelError, SpecError
from zsic.core.preprocess import fit
from zsic.demo.captions import label
from zsic.demo.drawing import draw, draw_with_mask
from zsic.demo.scene import BACKGROUNDS, COLOURS, SHAPES, Scene
from zsic.models.classifier import Classifier
from zsic.models.explain import Explainer

LABELS = [label({"shape": shape, "colour": colour}) for shape in SHAPES for colour in COLOURS]


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer("demo", LABELS)


def scenes(n: int) -> list[tuple[Scene, Image.Image, np.ndarray]]:
    """Pictures of one object, and the share of each patch that it covers."""
    found = []
    rng = Random("explain")
    while len(found) < n:
        shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
        scene = Scene(shape, colour, "plain", "one", "medium", rng.choice(["sand", "paper", "sky"]))
        if (colour, scene.background) in {("white", "sky"), ("white", "paper")}:
            continue
        picture, mask = draw_with_mask(scene, rng, (200, 200))
        mask_HW = np.asarray(mask.resize((64, 64), Image.Resampling.BOX), float) / 255
        found.append((scene, picture, mask_HW.reshape(8, 8, 8, 8).mean((1, 3))))
    return found


def test_the_hottest_patch_lies_on_the_object(explainer: Explainer) -> None:
    n_hit, chance = 0, []
    for scene, picture, covered_HW in scenes(30):
        found = explainer.explain(picture, label({"shape": scene.shape, "colour": scene.colour}))
        assert found.heat_HW.shape == (8, 8)
        assert (found.heat_HW.min(), found.heat_HW.max()) == (0, 1)
        n_hit += bool(covered_HW.ravel()[found.heat_HW.argmax()] > 0)
        chance.append((covered_HW > 0).mean())
    assert np.mean(chance) < 0.5
    assert n_hit >= 27


def test_another_label_is_seen_elsewhere() -> None:
    backgrounds = Explainer("demo", list(BACKGROUNDS))
    n_off = 0
    for scene, picture, covered_HW in scenes(30):
        heat_HW = backgrounds.explain(picture, scene.background).heat_HW
        n_off += bool(covered_HW.ravel()[heat_HW.argmax()] < 0.5)
    assert n_off >= 24


def test_the_best_label_and_its_score_are_those_of_predict(explainer: Explainer) -> None:
    classifier = Classifier("demo", LABELS)
    for _, picture, _ in scenes(3):
        found = explainer.explain(picture)
        best = classifier.predict(picture)[0]
        assert found.label == best["label"]
        assert found.score == pytest.approx(best["score"], abs=1e-4)
        second = classifier.predict(picture)[1]
        assert explainer.explain(picture, second["label"]).score == pytest.approx(second["score"], abs=1e-4)


def test_heat_is_the_same_each_time_and_leaves_no_gradient(explainer: Explainer) -> None:
    picture = scenes(1)[0][1]
    first, second = explainer.explain(picture, LABELS[3]), explainer.explain(picture, LABELS[3])
    assert np.array_equal(first.heat_HW, second.heat_HW)
    with torch.inference_mode():  # as a caller may have it
        pass
    assert torch.is_grad_enabled()


def test_a_label_that_is_none_is_refused(explainer: Explainer) -> None:
    with pytest.raises(SpecError, match="'purple cow' is none of the labels; they are 'red circle'"):
        explainer.explain(scenes(1)[0][1], "purple cow")


def test_one_label_alone_can_be_explained() -> None:
    found = Explainer("demo", ["red circle"]).explain(scenes(1)[0][1])
    assert found.heat_HW.max() == 1


@pytest.mark.parametrize("family", ["altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2"])
def test_every_tower_of_patches_is_explained(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    made = Explainer(str(tiny_checkpoints[family]), ["cat", "blue square"])
    rng = np.random.default_rng(0)
    size = made.geometry.size
    found = made.explain_pixels(rng.integers(0, 255, (*size, 3), np.uint8))
    assert found.heat_HW.shape == (size[0] // 8, size[1] // 8)
    assert (found.heat_HW.min(), found.heat_HW.max()) == (0, 1)


def test_a_tower_without_patches_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="of the family 'align', whose image tower has no attention between patches"):
        Explainer(str(tiny_checkpoints["align"]), ["cat", "dog"])


def test_the_mask_is_where_the_picture_differs_from_its_background() -> None:
    scene = Scene("circle", "red", "plain", "one", "large", "sand")
    picture, mask = draw_with_mask(scene, Random(1), (120, 100))
    assert picture.tobytes() == draw(scene, Random(1), (120, 100)).tobytes()
    pixels_HW3, inside_HW = np.asarray(picture, float), np.asarray(mask) > 250
    reddish_HW = pixels_HW3[..., 0] - pixels_HW3[..., 1] > 90
    assert (reddish_HW == inside_HW).mean() > 0.95


def test_what_the_model_sees_of_a_picture_is_told(explainer: Explainer) -> None:
    geometry = explainer.geometry
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1))).convert("RGB")
    left, top, right, bottom = geometry.seen(100, 200)
    assert (top, bottom, right - left) == (0, 100, 100)
    seen_HW3 = fit(ramp, geometry)
    assert abs(float(seen_HW3[:, 0].mean()) - left) < 2
    assert abs(float(seen_HW3[:, -1].mean()) - right) < 2
