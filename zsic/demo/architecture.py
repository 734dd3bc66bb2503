"""The miniature CLIP before training: its size, its image processor, and how its weights start.

P = positions: the class token, then the patches row by row; D = width.
"""

import math
from typing import Final

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from zsic.demo.album import IMAGE_SIDE_PX
from zsic.demo.tokenizer import MAX_TOKENS

_PATCH_PX: Final = 8
_WIDTH: Final = 128
_HEADS: Final = 4
_IMAGE_LAYERS, _TEXT_LAYERS = 5, 2

# Positions weigh about as much as the content of a patch, and a patch attends a few times more to its like than to
# others: by the standard deviations of transformers' own initialisation.
_POSITION_SCALE: Final = 0.4
_QUERY_DEVIATION: Final = 0.06
_LONGEST_WAVE: Final = 100.0


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Make an untrained model whose patches attend to their neighbours from the start.

    Positions start as waves of both coordinates, and keys equal to queries (after Trockman and Kolter, "Mimetic
    initialization of self-attention layers", 2023): a transformer finds that out by itself, but from more pictures
    than two CPU cores get through in an hour.
    """
    model = CLIPModel(_config(tokenizer))
    with torch.no_grad():
        embeddings = model.vision_model.embeddings
        _fill_with_waves(embeddings.position_embedding.weight)
        for layer in model.vision_model.encoder.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=_QUERY_DEVIATION)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def make_processor() -> CLIPImageProcessorPil:
    """Make CLIP's image processor for small pictures."""
    square = {"height": IMAGE_SIDE_PX, "width": IMAGE_SIDE_PX}
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE_PX}, crop_size=square)


def _fill_with_waves(table_PD: torch.Tensor) -> None:
    side = math.isqrt(len(table_PD) - 1)
    frequencies = _LONGEST_WAVE ** -torch.linspace(0, 1, table_PD.shape[1] // 4)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (row, column)]
    table_PD[0] = 0
    table_PD[1:] = _POSITION_SCALE * torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def _config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    tower = {
        "hidden_size": _WIDTH,
        "intermediate_size": 4 * _WIDTH,
        "num_attention_heads": _HEADS,
        "projection_dim": _WIDTH,
    }
    return CLIPConfig(
        projection_dim=_WIDTH,
        text_config={
            **tower,
            "num_hidden_layers": _TEXT_LAYERS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            **tower,
            "num_hidden_layers": _IMAGE_LAYERS,
            "image_size": IMAGE_SIDE_PX,
            "patch_size": _PATCH_PX,
        },
    )
