"""Tiny checkpoints of every family, with random weights, made on disk; and pictures to try them on."""

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

FAMILIES = ("align", "altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2")
SIZE = 32
WORDS = "this is a photo of . red blue green big small circle square triangle house cat very and".split()  # noqa: SIM905
SCALE = 27.0
BIAS = -3.5

MakeCheckpoint = Callable[[str, Path], Path]

_TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
_IMAGE = {**_TEXT, "image_size": SIZE, "patch_size": 8}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small for two
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """Write a tiny checkpoint of a family into a folder."""
    return _write


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder a family, to be read only."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: _write(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    """A tiny CLIP, to be read only."""
    return tiny_checkpoints["clip"]


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Encoded images that exercise resizing and cropping: wide, tall, small, grey, and the exact size."""
    rng = np.random.default_rng(0)
    found = {}
    for name, mode, size, kind in (
        ("wide.jpg", "RGB", (97, 41), "JPEG"),
        ("tall.jpg", "RGB", (60, 131), "JPEG"),
        ("grey.jpg", "L", (80, 64), "JPEG"),
        ("small.png", "RGB", (11, 17), "PNG"),
        ("exact.png", "RGB", (SIZE, SIZE), "PNG"),
    ):
        noise = rng.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        ImageDraw.Draw(image).ellipse((2, 2, size[0] // 2, size[1] - 3), fill=tuple(noise[0, 0].tolist()))
        stream = io.BytesIO()
        image.convert(mode).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
        found[name] = stream.getvalue()
    return found


def _write(family: str, folder: Path) -> Path:
    torch.manual_seed(sum(family.encode()))
    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    model = _model(family, tokenizer)
    with torch.no_grad():
        # Initial weights are so small that all images look alike to the model; and none may be at a default.
        for name, weight in model.named_parameters():
            if name.startswith("temperature"):
                weight.fill_(1 / SCALE)
            elif name.startswith("logit_scale"):
                weight.fill_(math.log(SCALE))
            elif name.startswith("logit_bias"):
                weight.fill_(BIAS)
            else:
                weight.add_(torch.randn_like(weight) * 0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_IMAGE_PROCESSORS[family]))
    return folder


_CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
}
_EXACT = {"height": SIZE, "width": SIZE}
_IMAGE_PROCESSORS: dict[str, dict[str, Any]] = {
    # As kakaobrain/align-base has it: a resize, a larger crop's worth of steps, a range of -1 to 1.
    "align": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": SIZE + 8, "width": SIZE + 8},
        "crop_size": _EXACT,
        "do_center_crop": True,
        "do_normalize": False,
        "include_top": False,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "resample": 2,
    },
    "altclip": _CLIP,
    "chinese_clip": {
        "image_processor_type": "ChineseCLIPImageProcessor",
        "size": _EXACT,
        "crop_size": SIZE,
        "do_center_crop": False,
    },
    # As openai/clip-vit-base-patch32 has it: integers, the old name, no rescaling mentioned.
    "clip": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": SIZE,
        "crop_size": SIZE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    },
    # Another size than the position table: this family interpolates it.
    "clipseg": {"image_processor_type": "ViTImageProcessor", "size": {"height": 40, "width": 40}},
    "metaclip_2": {**_CLIP, "size": {"shortest_edge": SIZE + 6}, "resample": 2},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": _EXACT},
    "tipsv2": {"image_processor_type": "Tipsv2ImageProcessor", "size": _EXACT},
}


def _model(family: str, tokenizer: Any) -> Any:
    vocabulary = {"vocab_size": len(tokenizer)}
    marks = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    clip_text = {**_TEXT, **vocabulary, **marks, "bos_token_id": tokenizer.bos_token_id}
    clip_text["max_position_embeddings"] = 77
    bert = {**_TEXT, **vocabulary, "max_position_embeddings": 40, "pad_token_id": tokenizer.pad_token_id}
    text, image = clip_text, _IMAGE
    options: dict[str, Any] = {"projection_dim": 12}
    match family:
        case "align":
            text = bert
            options = {"projection_dim": 16}  # the width that its image tower ends at
            image = {
                "image_size": SIZE,
                "hidden_dim": 12,
                "width_coefficient": 0.25,
                "depth_coefficient": 0.5,
                "kernel_sizes": [3, 5],
                "in_channels": [32, 16],
                "out_channels": [16, 64],
                "strides": [1, 2],
                "num_block_repeats": [1, 1],
                "expand_ratios": [1, 6],
            }
        case "altclip":
            text = {**bert, "project_dim": 20}
        case "chinese_clip":
            text = bert
        case "siglip":
            text = {**clip_text, "max_position_embeddings": 64}
            options = {}
        case "tipsv2":
            # Both towers end at one width, and the image tower counts by a ratio.
            text = {**clip_text, "max_position_embeddings": 64}
            image = {key: value for key, value in _IMAGE.items() if key != "intermediate_size"}
            options = {}
    classes = {
        "align": "Align",
        "altclip": "AltCLIP",
        "chinese_clip": "ChineseCLIP",
        "clip": "CLIP",
        "clipseg": "CLIPSeg",
        "metaclip_2": "MetaClip2",
        "siglip": "Siglip",
        "tipsv2": "Tipsv2",
    }
    config = getattr(transformers, f"{classes[family]}Config")(text_config=text, vision_config=image, **options)
    return getattr(transformers, f"{classes[family]}Model")(config)


def _tokenizer(family: str) -> Any:
    """A vocabulary of whole words in the family's own frame: its marks, its case, its padding."""
    match family:
        case "align" | "chinese_clip":
            marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            return transformers.BertTokenizer(vocab={w: i for i, w in enumerate(marks + WORDS)})
        case "altclip" | "metaclip_2":
            marks = ["<s>", "<pad>", "</s>", "<unk>"]
            pieces = [f"▁{word}" for word in WORDS] + ["<mask>"]
            scores = [(mark, 0.0) for mark in marks] + [(piece, -2.0) for piece in pieces]
            return transformers.XLMRobertaTokenizer(vocab=scores)
        case "siglip":
            return _siglip_tokenizer()
        case "tipsv2":
            words = [["▁", *word] for word in WORDS]
            vocab, merges = _learn(["<pad>", "<unk>"], words)
            return transformers.Tipsv2Tokenizer(vocab=vocab, merges=merges)
        case _:
            words = [[*word[:-1], f"{word[-1]}</w>"] for word in WORDS]
            vocab, merges = _learn(["<|startoftext|>", "<|endoftext|>"], words)
            return transformers.CLIPTokenizer(vocab=vocab, merges=merges)


def _learn(marks: list[str], words: list[list[str]]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary in which each word is one token."""
    symbols = dict.fromkeys(marks) | {symbol: None for word in words for symbol in word}
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        whole = word[0]
        for symbol in word[1:]:
            merges[whole, symbol] = None
            whole += symbol
            symbols[whole] = None
    return {symbol: i for i, symbol in enumerate(symbols)}, list(merges)


def _siglip_tokenizer() -> Any:
    """As SigLIP 2 has it: lower case, an end mark, padded on the right, no attention mask."""
    inner = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *WORDS])}, "<unk>")
    )
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=64,
        model_input_names=["input_ids"],
    )
