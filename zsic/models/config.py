"""What the config of a plain CLIP or SigLIP says, without transformers, which takes seconds to import."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from zsic.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class PlainConfig:
    """The fields of transformers' config that the towers are made by; all others are of no effect there."""

    model_type: str
    vision_config: SimpleNamespace
    text_config: SimpleNamespace
    projection_dim: int | None


_CLIP_TOWER = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_MARKS = {"pad_token_id": 1, "eos_token_id": 49407}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {
        "vision_config": {
            **_CLIP_TOWER,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_channels": 3,
            "image_size": 224,
            "patch_size": 32,
        },
        "text_config": {
            **_CLIP_TOWER,
            **_MARKS,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "vocab_size": 49408,
            "max_position_embeddings": 77,
        },
        "projection_dim": 512,
    },
    "siglip": {
        "vision_config": {
            **_SIGLIP_TOWER,
            "num_channels": 3,
            "image_size": 224,
            "patch_size": 16,
            "vision_use_head": True,
        },
        "text_config": {
            **_SIGLIP_TOWER,
            **_MARKS,
            "vocab_size": 32000,
            "max_position_embeddings": 64,
            "projection_size": None,
        },
        "projection_dim": None,
    },
}
"""Transformers' defaults, which files leave out; tests compare them."""

_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")


def read_plain_config(checkpoint: Checkpoint) -> PlainConfig | None:
    """The config of a checkpoint; None where it is not of these families, or says what transformers has to judge."""
    defaults = _DEFAULTS.get(checkpoint.model_type)
    if defaults is None:
        return None
    given = checkpoint.read_json("config.json")
    vision, text = (_fill(given, name, defaults[name]) for name in ("vision_config", "text_config"))
    projection = given.get("projection_dim", defaults["projection_dim"])
    if vision is None or text is None or not _is_plain("projection_dim", projection, defaults["projection_dim"]):
        return None
    if not getattr(vision, "vision_use_head", True):
        return None
    return PlainConfig(checkpoint.model_type, vision, text, projection)


def _fill(given: dict[str, Any], name: str, defaults: dict[str, Any]) -> SimpleNamespace | None:
    """The fields of one tower; None where one is not of the kind that its default is."""
    fields = given.get(name) or {}
    # CLIP's first config files say it twice, and transformers goes by this one.
    old = given.get(f"{name}_dict") if given["model_type"] == "clip" else None
    fields = fields if old is None else old
    if not isinstance(fields, dict):
        return None
    found = {key: fields.get(key, default) for key, default in defaults.items()}
    if not all(_is_plain(key, value, defaults[key]) for key, value in found.items()):
        return None
    return None if found["hidden_size"] % found["num_attention_heads"] else SimpleNamespace(**found)


def _is_plain(key: str, value: Any, default: Any) -> bool:
    if key == "hidden_act":
        return value in _ACTIVATIONS
    if type(value) is not type(default) and not (default is None and type(value) is int):
        return False
    return type(value) is not int or value >= (0 if key.endswith("_id") else 1)
