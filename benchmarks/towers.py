"""Checkpoints of well-known shapes, with random weights: rates do not depend on them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from zsic.demo import MODEL_PATH


@dataclass(frozen=True)
class Tower:
    """The shape of an image tower."""

    kind: str
    width: int
    layers: int
    heads: int
    mlp: int
    patch: int
    size: int
    dim: int

    @property
    def flops(self) -> float:
        """Of one image: two for each multiplication and addition of the layers' products."""
        tokens = (self.size // self.patch) ** 2 + (self.kind == "clip")
        a_layer = tokens * (4 * self.width**2 + 2 * self.width * self.mlp) + 2 * tokens**2 * self.width
        return 2.0 * (self.layers * a_layer + tokens * 3 * self.patch**2 * self.width)


TOWERS = {
    "B/32": Tower("clip", 768, 12, 12, 3072, 32, 224, 512),
    "B/16": Tower("clip", 768, 12, 12, 3072, 16, 224, 512),
    "L/14": Tower("clip", 1024, 24, 16, 4096, 14, 224, 768),
    "L/14@336": Tower("clip", 1024, 24, 16, 4096, 14, 336, 768),
    "SO400M@384": Tower("siglip", 1152, 27, 16, 4304, 14, 384, 1152),
    "tiny": Tower("clip", 32, 1, 2, 64, 8, 32, 16),
    "smoke": Tower("clip", 64, 2, 2, 128, 32, 224, 32),
    "smoke-siglip": Tower("siglip", 64, 2, 2, 128, 16, 64, 64),
}


def make_checkpoint(tower: Tower, folder: Path, device: str) -> Path:
    """Write a checkpoint of random weights, with a text tower as small as may be."""
    if (folder / "preprocessor_config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(MODEL_PATH) / file, folder / file)
    text = json.loads((Path(MODEL_PATH) / "config.json").read_text())["text_config"]
    text |= {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
    vision = {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "image_size": tower.size,
        "patch_size": tower.patch,
    }
    if tower.kind == "clip":
        config = transformers.CLIPConfig(
            text_config={**text, "projection_dim": tower.dim}, vision_config=vision, projection_dim=tower.dim
        )
        model_class = transformers.CLIPModel
        processor = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": tower.size},
            "crop_size": {"height": tower.size, "width": tower.size},
        }
    else:
        # Both towers end at one width in this family.
        text |= {"max_position_embeddings": 64, "hidden_size": tower.dim, "projection_size": tower.dim}
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model_class = transformers.SiglipModel
        processor = {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": tower.size, "width": tower.size},
        }
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
