"""Heads that this machine has compiled before: labels are encoded once, not once a run."""

import contextlib
import os
import tempfile
from pathlib import Path

import torch

from zsic.core.cache import cache_folder
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
    path = cache_folder() / "heads" / f"{digest}-torch-{torch.__version__}.safetensors"
    with contextlib.suppress(ModelError):
        head = Head.load(path)
        if head.digest == digest and head.matrix_CD.isfinite().all():
            return head
    head = compile_head(label_set, TextEncoder(checkpoint))
    _keep(head, path)
    return head


def _keep(head: Head, path: Path) -> None:
    """Put the file in place at once.  A cache that cannot be written costs time alone."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent)
        os.close(handle)
        try:
            head.save(scratch)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
        for old in sorted(path.parent.glob("*.safetensors"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            old.unlink()
