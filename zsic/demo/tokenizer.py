"""A CLIP tokenizer of our own: byte-level, lower-casing, with merges learnt from the captions.

Every byte is in the vocabulary, so that any text can be encoded; the words of the captions are one token each.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

MAX_TOKENS: Final = 77
_WORD_END: Final = "</w>"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], n_merges: int = 900) -> CLIPTokenizer:
    """Learn up to `n_merges` merges from `texts`.

    The end token has the highest id and is also the padding: CLIP pools at the first end token.
    """
    byte_symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = byte_symbols + [symbol + _WORD_END for symbol in byte_symbols]
    backend = CLIPTokenizer().backend_tokenizer  # brings CLIP's normalisation and word splitting
    trainer = trainers.BpeTrainer(
        vocab_size=len(byte_symbols) + n_merges,
        initial_alphabet=byte_symbols,
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learnt = _merges(backend.to_str())
    vocabulary = dict.fromkeys([*symbols, *(first + second for first, second in learnt)])
    ids = {symbol: index for index, symbol in enumerate([*vocabulary, _BOS, _EOS])}
    merges: Any = learnt  # pairs are what the tokenizer takes; its type says strings
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=MAX_TOKENS)


def _merges(tokenizer_json: str) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer_json)["model"]["merges"]
    return [(first, second) for first, second in merges]
