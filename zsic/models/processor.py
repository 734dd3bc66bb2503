"""What a checkpoint's image processor does to a picture: geometry on the CPU, arithmetic on the device.

Shape legend: B images, H W pixels, 3 is RGB, R = W * 3 numbers of a row of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from zsic.core.errors import ModelError
from zsic.core.preprocess import Geometry, Resample
from zsic.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

_HALVES = (0.5, 0.5, 0.5)
_ANY: dict[str, Any] = {
    "do_resize": True,
    "resample": 3,
    "default_to_square": True,
    "do_center_crop": None,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "rescale_offset": None,
    "do_normalize": True,
    "image_mean": _HALVES,
    "image_std": _HALVES,
    "include_top": None,
}
_CLIP = {
    **_ANY,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "EfficientNetImageProcessor": {
        **_ANY,
        "size": {"height": 346, "width": 346},
        "do_center_crop": False,
        "crop_size": {"height": 289, "width": 289},
        "rescale_offset": False,
        "include_top": True,
    },
    "SiglipImageProcessor": {**_ANY, "size": {"height": 224, "width": 224}, "default_to_square": False},
    "Tipsv2ImageProcessor": {
        **_ANY,
        "size": {"height": 448, "width": 448},
        "resample": 2,
        "do_normalize": False,
        "image_mean": None,
        "image_std": None,
    },
    "ViTImageProcessor": {**_ANY, "size": {"height": 224, "width": 224}, "resample": 2},
}
"""Types of image processors whose steps are understood, with transformers' defaults for what a file leaves out.

Written out, for transformers takes seconds to be asked; tests compare them."""
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_RESAMPLE: tuple[Resample, ...] = get_args(Resample)  # in the order of Pillow's numbers


@dataclass(frozen=True, slots=True)
class Normalisation:
    """From uint8 to what the tower was trained on: ``(x * factor + offset - mean) / std`` by channel."""

    factor: float = 1.0
    offset: float = 0.0
    mean_3: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std_3: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def for_rows(self, width: int, device: torch.device) -> Normaliser:
        """Make ready for pictures of this width on a device."""
        import torch

        mean_3, std_3 = np.array(self.mean_3), np.array(self.std_3)
        scale_R, shift_R = (
            torch.tensor(np.tile(value_3, width), dtype=torch.float32, device=device)
            for value_3 in (self.factor / std_3, (self.offset - mean_3) / std_3)
        )
        return Normaliser(scale_R, shift_R)


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """One multiplication and one addition for each number of a row of pixels, R = W * 3.

    A pass for each step of transformers would cost a GPU as much as a layer of a small tower; by channels instead of
    whole rows it would cost a CPU eight times as much.
    """

    scale_R: torch.Tensor
    shift_R: torch.Tensor

    def __call__(self, pixels_BHW3: torch.Tensor) -> torch.Tensor:
        """Float32 [B, 3, H, W] of contiguous uint8 pixels, where these are; in memory the channels stay last."""
        import torch

        x_BHR = torch.addcmul(self.shift_R, pixels_BHW3.flatten(2), self.scale_R)
        return x_BHR.view(pixels_BHW3.shape).permute(0, 3, 1, 2)


def read_geometry(checkpoint: Checkpoint) -> Geometry:
    """Read how pictures are brought to the model's size.  Raises `ModelError` that names the setting."""
    processor = _read_processor(checkpoint)
    resize = _read_resize(processor, checkpoint)
    crop = processor.crop_size if processor.do_center_crop else None
    if isinstance(resize, int | None) and crop is None:
        setting = "do_resize is false" if resize is None else "size is a shortest edge"
        raise _refuse(checkpoint, f"{setting} and do_center_crop is not set, so pictures keep their shapes")
    return Geometry(
        resize=resize,
        resample=_RESAMPLE[int(processor.resample)],
        crop=None if crop is None else (crop["height"], crop["width"]),
    )


def read_normalisation(checkpoint: Checkpoint) -> Normalisation:
    """Read what is done to the numbers of a picture.  Raises `ModelError` that names the setting."""
    processor = _read_processor(checkpoint)
    factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
    # EfficientNet's two own steps: a range around zero, and once more a division by the deviation.
    offset = -1.0 if processor.do_rescale and processor.rescale_offset else 0.0
    mean_3, std_3 = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.do_normalize:
        mean_3, std_3 = _three(processor.image_mean), _three(processor.image_std)
    if processor.include_top:
        std_3 = _three([a * b for a, b in zip(std_3, _three(processor.image_std), strict=True)])
    return Normalisation(factor, offset, mean_3, std_3)


def _read_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of the image processor, from where transformers looks, in its order."""
    fields: dict[str, Any] = checkpoint.read_json("processor_config.json").get(
        "image_processor"
    ) or checkpoint.read_json("preprocessor_config.json")
    if not fields:
        raise ModelError(
            f"model.name: {checkpoint.name} has no preprocessor_config.json, so its image size is unknown; "
            "fetch it again"
        )
    return fields


def _read_processor(checkpoint: Checkpoint) -> SimpleNamespace:
    """The settings of the image processor, with their defaults, and sizes as dicts."""
    fields = _read_fields(checkpoint)
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type", "").replace(
        "FeatureExtractor", "ImageProcessor"
    )
    kind = (kind or checkpoint.family.image_processor).removesuffix("Fast")
    if kind not in PROCESSORS:
        raise _refuse(checkpoint, f"image_processor_type is {kind!r}; supported are {', '.join(PROCESSORS)}")
    for setting, value in fields.items():
        if setting.startswith("do_") and value and setting not in _STEPS:
            raise _refuse(checkpoint, f"{setting} is {value!r}")
    settings = {
        name: default if fields.get(name) is None else fields[name] for name, default in PROCESSORS[kind].items()
    }
    settings["size"] = _to_size(settings["size"], settings["default_to_square"], "size", checkpoint)
    if settings["crop_size"] is not None:
        settings["crop_size"] = crop = _to_size(settings["crop_size"], True, "crop_size", checkpoint)
        if set(crop) != {"height", "width"}:
            raise _refuse(checkpoint, f"crop_size is {crop}; supported are height and width")
    return SimpleNamespace(**settings)


def _to_size(value: Any, is_square: bool, name: str, checkpoint: Checkpoint) -> dict[str, int]:
    """A size as newer files have it; older ones have numbers."""
    match value:
        case dict():
            return {key: each for key, each in value.items() if each is not None}
        case int():
            return {"height": value, "width": value} if is_square else {"shortest_edge": value}
        case [height, width]:
            return {"height": height, "width": width}
        case _:
            raise _refuse(checkpoint, f"{name} is {value!r}; supported are height and width, or shortest_edge")


def _read_resize(processor: SimpleNamespace, checkpoint: Checkpoint) -> int | tuple[int, int] | None:
    if not processor.do_resize:
        return None
    match size := processor.size:
        case {"height": int(height), "width": int(width)} if len(size) == 2:
            return height, width
        case {"shortest_edge": int(edge)} if len(size) == 1:
            return edge
        case _:
            raise _refuse(checkpoint, f"size is {size}; supported are height and width, or shortest_edge")


def _three(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, tuple | list) else (value,) * 3
    return float(red), float(green), float(blue)


def _refuse(checkpoint: Checkpoint, what: str) -> ModelError:
    return ModelError(
        f"model.name: the image processor of {checkpoint.name} cannot be reproduced: {what}; "
        "use another checkpoint of the family"
    )
