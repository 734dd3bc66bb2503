"""Prompts to tokens: by transformers' tokenizers, and without transformers' seconds of imports where that is the same.

Shape legend: T texts, L tokens of the longest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zsic.core.errors import ModelError
from zsic.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch


class Tokenizer(Protocol):
    """What a text encoder needs of a tokenizer."""

    limit: int
    """Tokens of the longest text, as the tokenizer's own files have it; start and end marks included."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut, start and end marks included."""
        ...

    def encode(self, texts: Sequence[str], limit: int, *, fill: bool) -> dict[str, torch.Tensor]:
        """The arguments of a text tower, [T, L], cut to `limit`; filled up to the longest text, or to `limit`."""
        ...


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Load the tokenizer of a checkpoint.  Raises `ModelError`."""
    try:
        return _load_plain(checkpoint) or _OfTransformers(checkpoint)
    # A broken tokenizer file makes the Rust tokenizers raise a bare Exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model.name: the tokenizer of {checkpoint.name} cannot be loaded: {reason[:300]}; fetch it again"
        ) from error


class _OfTransformers:
    def __init__(self, checkpoint: Checkpoint) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=False
        )
        self.limit: int = self._tokenizer.model_max_length

    def count(self, texts: Sequence[str]) -> list[int]:
        ids = self._tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def encode(self, texts: Sequence[str], limit: int, *, fill: bool) -> dict[str, torch.Tensor]:
        padding = "max_length" if fill else True
        return dict(
            self._tokenizer(list(texts), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        )


# --- CLIP's, as transformers 5 saves it.  It makes the tokenizer of the vocabulary and the merges alone, and writes the
# rest anew: so a file may be used as it is only if the rest is what would be written.

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PIECES = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    },
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": _WORDS},
                "behavior": "Removed",
                "invert": True,
            },
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
}
_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": _END,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "</w>",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
_CONFIG = {
    "backend": "tokenizers",
    "bos_token": _START,
    "eos_token": _END,
    "pad_token": _END,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": _END,
}


def _load_plain(checkpoint: Checkpoint) -> _Plain | None:
    """CLIP's tokenizer by the `tokenizers` library alone; None for any other, or one with settings of its own."""
    config, file = checkpoint.read_json("tokenizer_config.json"), checkpoint.read_json("tokenizer.json")
    limit = config.pop("model_max_length", None)
    others = [name for name in ("special_tokens_map.json", "added_tokens.json") if checkpoint.read_json(name)]
    if checkpoint.model_type != "clip" or config != _CONFIG or type(limit) is not int or others:
        return None
    model = dict(file.get("model") or {})
    vocabulary, merges = model.pop("vocab", None), model.pop("merges", None)
    if model != _MODEL or not isinstance(vocabulary, dict) or not isinstance(merges, list):
        return None
    start: Any = vocabulary.get(_START)
    end: Any = vocabulary.get(_END)
    expected = {
        **_PIECES,
        "added_tokens": [_mark(start, _START), _mark(end, _END)],
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [_END, end],
            "cls": [_START, start],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
    }
    if any(file.get(name) != piece for name, piece in expected.items()):
        return None
    return _Plain(json.dumps(file), limit, end)


def _mark(number: Any, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": text, **flags}


class _Plain:
    def __init__(self, file: str, limit: int, pad_id: int) -> None:
        import tokenizers

        self._tokenizer: Any = tokenizers.Tokenizer.from_str(file)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pad_id = pad_id
        self.limit = limit

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(each.ids) for each in self._tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str], limit: int, *, fill: bool) -> dict[str, torch.Tensor]:
        import torch

        self._tokenizer.enable_truncation(limit)
        rows = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        self._tokenizer.no_truncation()
        width = limit if fill else max(map(len, rows))
        return {
            "input_ids": torch.tensor([ids + [self._pad_id] * (width - len(ids)) for ids in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows]),
        }
