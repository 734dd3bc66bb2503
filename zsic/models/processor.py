"""What a checkpoint's image processor does to a picture: geometry on the CPU, arithmetic on the device.

Shape legend: B images, H W pixels, 3 is RGB, R = W * 3 numbers of a row of pixels.
"""

from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, get_args

import numpy as np
import torch

from zsic.core.cache import remember
from zsic.core.errors import ModelError
from zsic.core.preprocess import Geometry, Resample
from zsic.models.checkpoint import Checkpoint

# Types whose steps are understood, with the module of the class that knows their defaults.  None of these
# classes needs torchvision to be asked for its settings.
_PROCESSORS = {
    "CLIPImageProcessor": "clip.image_processing_pil_clip",
    "ChineseCLIPImageProcessor": "chinese_clip.image_processing_pil_chinese_clip",
    "EfficientNetImageProcessor": "efficientnet.image_processing_pil_efficientnet",
    "SiglipImageProcessor": "siglip.image_processing_pil_siglip",
    "Tipsv2ImageProcessor": "tipsv2.image_processing_tipsv2",
    "ViTImageProcessor": "vit.image_processing_pil_vit",
}
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_RESAMPLE: tuple[Resample, ...] = get_args(Resample)  # in the order of Pillow's numbers


@dataclass(frozen=True, slots=True)
class Normalisation:
    """From uint8 to what the tower was trained on: ``(x * factor + offset - mean) / std`` by channel."""

    factor: float = 1.0
    offset: float = 0.0
    mean_3: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std_3: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def for_rows(self, width: int, device: torch.device) -> "Normaliser":
        """Make ready for pictures of this width on a device."""
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
        x_BHR = torch.addcmul(self.shift_R, pixels_BHW3.flatten(2), self.scale_R)
        return x_BHR.view(pixels_BHW3.shape).permute(0, 3, 1, 2)


def read_geometry(checkpoint: Checkpoint) -> Geometry:
    """Read how pictures are brought to the model's size.  Raises `ModelError` that names the setting."""
    return Geometry.from_dict(remember("geometries", _key(checkpoint), lambda: _read_geometry(checkpoint).to_dict()))


def _read_geometry(checkpoint: Checkpoint) -> Geometry:
    processor = _read_processor(checkpoint)
    resize = _read_resize(processor, checkpoint)
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    if isinstance(resize, int | None) and crop is None:
        setting = "do_resize is false" if resize is None else "size is a shortest edge"
        raise _refuse(checkpoint, f"{setting} and do_center_crop is not set, so pictures keep their shapes")
    resample = getattr(processor, "resample", None)
    return Geometry(
        resize=resize,
        resample="bilinear" if resample is None else _RESAMPLE[int(resample)],
        crop=None if crop is None else (crop.height, crop.width),
    )


def read_normalisation(checkpoint: Checkpoint) -> Normalisation:
    """Read what is done to the numbers of a picture.  Raises `ModelError` that names the setting."""
    found = remember("normalisations", _key(checkpoint), lambda: asdict(_read_normalisation(checkpoint)))
    return Normalisation(found["factor"], found["offset"], _three(found["mean_3"]), _three(found["std_3"]))


def _key(checkpoint: Checkpoint) -> list[Any]:
    """What settings are remembered by: transformers takes seconds to say what it takes for one that is not there."""
    return [version("transformers"), checkpoint.family.image_processor, _read_fields(checkpoint)]


def _read_normalisation(checkpoint: Checkpoint) -> Normalisation:
    processor = _read_processor(checkpoint)
    factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
    # EfficientNet's two own steps: a range around zero, and once more a division by the deviation.
    offset = -1.0 if processor.do_rescale and getattr(processor, "rescale_offset", False) else 0.0
    mean_3, std_3 = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.do_normalize:
        mean_3, std_3 = _three(processor.image_mean), _three(processor.image_std)
    if getattr(processor, "include_top", False):
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


def _read_processor(checkpoint: Checkpoint) -> Any:
    """The image processor of transformers, for its settings with their defaults; it is never called."""
    fields = _read_fields(checkpoint)
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type", "").replace(
        "FeatureExtractor", "ImageProcessor"
    )
    kind = (kind or checkpoint.family.image_processor).removesuffix("Fast")
    if kind not in _PROCESSORS:
        raise _refuse(checkpoint, f"image_processor_type is {kind!r}; supported are {', '.join(_PROCESSORS)}")
    for setting, value in fields.items():
        if setting.startswith("do_") and value and setting not in _STEPS:
            raise _refuse(checkpoint, f"{setting} is {value!r}")
    module = import_module(f"transformers.models.{_PROCESSORS[kind]}")
    processor_class = getattr(module, f"{kind}Pil", None) or getattr(module, kind)
    return processor_class.from_dict(fields)


def _read_resize(processor: Any, checkpoint: Checkpoint) -> int | tuple[int, int] | None:
    if not processor.do_resize:
        return None
    size = {key: value for key, value in dict(processor.size).items() if value is not None}
    match size:
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
