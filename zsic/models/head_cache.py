"""Heads that this machine has compiled before: labels are encoded once, not once a run."""

import contextlib

import torch

from zsic.core.cache import cache_folder, keep
from zsic.core.errors import ModelError
from zsic.core.labels import LabelSet
from zsic.models.checkpoint import Checkpoint
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, compile_head, digest_inputs

_KEPT = 50
"""Files; the one that was made first goes first."""


def find_head(label_set: LabelSet, checkpoint: Checkpoint) -> Head:
    """The head of these labels for this checkpoint: from the cache, or compiled and put there.

    A file counts only if it says that it was made of these very labels, prompts and weights; by another version of
    torch it may differ in the last bits, and is made again.
    """
    digest = digest_inputs(label_set.names, label_set.prompts(), checkpoint.digest)
    folder = cache_folder() / "heads"
    path = folder / f"{digest}-torch-{torch.__version__}.safetensors"
    with contextlib.suppress(ModelError):
        head = Head.load(path)
        if head.digest == digest and head.matrix_CD.isfinite().all():
            return head
    head = compile_head(label_set, TextEncoder(checkpoint))
    keep(path, head.to_bytes())
    with contextlib.suppress(OSError):  # another process may tidy up as well
        for old in sorted(folder.glob("*.safetensors"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return head
