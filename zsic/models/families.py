"""What distinguishes the families of two-tower models: their class, their text, their score.

Every family here gives ``logits_per_image = scale * image @ text.T + bias`` of unit vectors, and offers both
vectors by `get_image_features` and `get_text_features`.  Which numbers these are is read from the checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from zsic.core.errors import ModelError
from zsic.core.scoring import Link

TEXT_PARTS = ("text_model", "text_projection")
IMAGE_PARTS = ("vision_model", "visual_projection")


@dataclass(frozen=True, slots=True)
class Family:
    """One `model_type` of transformers, and how its zero-shot pipeline treats it."""

    model_type: str
    model_class: str
    """Name of the class in transformers; never chosen by the checkpoint."""
    image_processor: str
    """Type of image processor where the checkpoint does not name one."""
    link: Link = "softmax"
    scale: Literal["logit_scale", "temperature"] = "logit_scale"
    """The weight that holds the scale: as its logarithm, or as a temperature that divides."""
    padding: Literal["longest", "max_length"] = "longest"
    """To the longest prompt of the batch, or to the token limit, as towers without a mask were trained."""
    max_tokens: int | None = None
    """Upper bound of the token limit, where the pipeline has one of its own."""
    first_position: Literal[0, "after_padding"] = 0
    """RoBERTa counts positions from the padding id, and so has fewer of them than its table is long."""
    lower_case: tuple[str, ...] = ()
    """Tokenizer classes that keep case although the tower was trained on lower case."""
    any_size: bool = False
    """Whether the image tower takes other sizes than the one in its config."""

    def token_limit(self, text_config: Any, tokenizer_limit: int) -> int:
        """Tokens of the longest prompt that is not cut, start and end marks included."""
        positions: int = text_config.max_position_embeddings
        if self.first_position == "after_padding":
            positions -= text_config.pad_token_id + 1
        return min(positions, tokenizer_limit, self.max_tokens or positions)

    def read_scale(self, model: Any) -> float:
        """The learned factor of the cosine."""
        value = getattr(model, self.scale).detach().float()
        scale = float(value.exp()) if self.scale == "logit_scale" else 1 / float(value)
        if not (math.isfinite(scale) and scale > 0):
            raise ModelError(f"model: {self.scale} makes the scale {scale}; the checkpoint is damaged")
        return scale

    def read_bias(self, model: Any) -> float:
        """The learned summand of the logit; 0 for a family that has none."""
        bias = getattr(model, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach().float())


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.model_type: family
        for family in (
            Family("align", "AlignModel", "EfficientNetImageProcessor", scale="temperature", any_size=True),
            Family("altclip", "AltCLIPModel", "CLIPImageProcessor", first_position="after_padding"),
            Family("chinese_clip", "ChineseCLIPModel", "ChineseCLIPImageProcessor"),
            Family("clip", "CLIPModel", "CLIPImageProcessor"),
            Family("clipseg", "CLIPSegModel", "ViTImageProcessor", any_size=True),
            Family("metaclip_2", "MetaClip2Model", "CLIPImageProcessor"),
            Family(
                "siglip",
                "SiglipModel",
                "SiglipImageProcessor",
                link="sigmoid",
                padding="max_length",
                max_tokens=64,
                # SigLIP 2 came with Gemma's tokenizer as it is; Siglip2Tokenizer repairs that, and only for
                # checkpoints that name it (huggingface/transformers#43054).
                lower_case=("GemmaTokenizer", "GemmaTokenizerFast"),
            ),
            Family("tipsv2", "Tipsv2Model", "Tipsv2ImageProcessor", scale="temperature", any_size=True),
        )
    }
)
"""The families whose towers reproduce `logits_per_image`, by the `model_type` of their config."""

_USE = "use CLIP or SigLIP, such as openai/clip-vit-base-patch32 or google/siglip2-base-patch16-224"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "blip": "its checkpoints load into BlipModel with random weights and no error",
        "blip-2": "its score is the best of many query vectors, not one product of two vectors",
        "siglip2": "NaFlex gives each picture its own shape, so images cannot be batched",
        "videoprism": "it encodes clips of many frames, not images",
    }
)
"""Families of the same pipeline that are refused, and why."""


def find_family(model_type: str, name: str) -> Family:
    """Look up a family.  Raises `ModelError` that says why `name` is refused and what to use."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in REFUSED:
        raise ModelError(f"model.name: {name} is of the family {model_type!r}: {REFUSED[model_type]}; {_USE}")
    raise ModelError(
        f"model.name: {name} is of the family {model_type!r}, which is not supported; "
        f"supported are {', '.join(FAMILIES)}"
    )
