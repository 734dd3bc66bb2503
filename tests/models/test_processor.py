import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from zsic.core.errors import ModelError
from zsic.core.preprocess import Geometry, fit
from zsic.models.checkpoint import Checkpoint
from zsic.models.processor import PROCESSORS, read_geometry, read_normalisation


def _checkpoint(tmp_path: Path, fields: dict[str, Any], model_type: str = "clip", nested: bool = False) -> Checkpoint:
    file = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / file).write_text(json.dumps({"image_processor": fields} if nested else fields))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Checkpoint("x/y", tmp_path, model_type, None, "0" * 64, None)  # type: ignore[arg-type]


CONFIGS = [
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 40}, "crop_size": 32},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 48, "crop_size": 48, "resample": 1},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 30}, "crop_size": 36, "resample": 0},
    {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": {"height": 30, "width": 44}},
    {"image_processor_type": "CLIPImageProcessor", "do_normalize": False, "crop_size": 32, "size": 32},
    {"image_processor_type": "CLIPImageProcessor", "do_rescale": False, "crop_size": 32, "size": 32},
    {
        "image_processor_type": "ChineseCLIPImageProcessor",
        "size": {"height": 24, "width": 40},
        "do_center_crop": False,
        "resample": 4,
    },
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 33, "width": 21}, "image_mean": 0.4},
    {"image_processor_type": "ViTImageProcessor", "size": 25, "resample": 5},
    {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 40, "width": 40}},
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 40, "width": 40},
        "do_center_crop": True,
        "crop_size": 32,
        "include_top": False,
        "do_normalize": False,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
    },
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 20, "width": 20},
        "do_normalize": False,
        "image_std": [0.2, 0.3, 0.4],
    },
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("fields", CONFIGS)
def test_pixels_are_transformers(
    fields: dict[str, Any], nested: bool, tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    """To the last bit of uint8, and to float32 rounding after that."""
    checkpoint = _checkpoint(tmp_path, fields, nested=nested)
    geometry, normalisation = read_geometry(checkpoint), read_normalisation(checkpoint)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for data in pictures.values():
        image = Image.open(io.BytesIO(data)).convert("RGB")
        pixels_1HW3 = torch.from_numpy(fit(image, geometry)[None].copy())
        assert pixels_1HW3.shape[1:3] == geometry.size
        expected = theirs(images=[image], return_tensors="np")["pixel_values"]
        largest = max(1, abs(expected).max())
        got = normalisation.for_rows(geometry.size[1], torch.device("cpu"))(pixels_1HW3).numpy()
        np.testing.assert_allclose(got, expected, rtol=3e-7, atol=6e-7 * largest)


_MODULES = {
    "CLIPImageProcessor": "clip.image_processing_pil_clip",
    "ChineseCLIPImageProcessor": "chinese_clip.image_processing_pil_chinese_clip",
    "EfficientNetImageProcessor": "efficientnet.image_processing_pil_efficientnet",
    "SiglipImageProcessor": "siglip.image_processing_pil_siglip",
    "Tipsv2ImageProcessor": "tipsv2.image_processing_tipsv2",
    "ViTImageProcessor": "vit.image_processing_pil_vit",
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_defaults_are_transformers(kind: str) -> None:
    # Not from `transformers` itself, which wants torchvision where it is going to be called.
    module = importlib.import_module(f"transformers.models.{_MODULES[kind]}")
    theirs = (getattr(module, f"{kind}Pil", None) or getattr(module, kind))()
    expected = {name: getattr(theirs, name, None) for name in PROCESSORS[kind]}
    for name in ("size", "crop_size"):
        expected[name] = None if expected[name] is None else dict(expected[name])
    assert {**expected, "resample": int(expected["resample"])} == PROCESSORS[kind]


def test_defaults_are_the_familys(tmp_path: Path) -> None:
    geometry = read_geometry(_checkpoint(tmp_path, {"do_resize": True}, model_type="siglip"))
    assert geometry == Geometry(resize=(224, 224), resample="bicubic", crop=None)
    geometry = read_geometry(_checkpoint(tmp_path, {"do_resize": True}, model_type="clip"))
    assert geometry == Geometry(resize=224, resample="bicubic", crop=(224, 224))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"do_pad": True}, "do_pad is True"),
        ({"do_thumbnail": True}, "do_thumbnail is True"),
        ({"do_center_crop": False}, "size is a shortest edge and do_center_crop is not set"),
        ({"do_center_crop": False, "do_resize": False}, "do_resize is false and do_center_crop is not set"),
        ({"size": {"shortest_edge": 30, "longest_edge": 60}}, "size is {'shortest_edge': 30, 'longest_edge': 60}"),
        ({"crop_size": {"shortest_edge": 30}}, "crop_size is {'shortest_edge': 30}"),
        ({"size": "large"}, "size is 'large'"),
        ({"size": {"max_height": 30, "max_width": 60}}, "size is {'max_height': 30"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "image_processor_type is 'Siglip2ImageProcessor'"),
    ],
)
def test_what_cannot_be_reproduced_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_geometry(_checkpoint(tmp_path, fields))
    assert message in str(caught.value)
    assert "x/y" in str(caught.value)


def test_no_processor_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        read_geometry(_checkpoint(tmp_path, {}))
