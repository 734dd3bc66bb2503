"""Heads that this machine has compiled before: labels are encoded once, not once a run."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from zsic.core.cache import cache_folder, keep
from zsic.core.errors import ModelError
from zsic.core.labels import LabelSet
from zsic.models.checkpoint import Checkpoint
from zsic.models.head import Head, compile_head

if TYPE_CHECKING:
    from zsic.models.heads import Heads

N_KEPT = 50
"""Files in the cache; the oldest goes first."""


def find_heads(sets: Sequence[LabelSet | Head], top_ks: Sequence[int], checkpoint: Checkpoint) -> "Heads":
    """The heads of a job's label sets; those that came as files are there already."""
    from zsic.models.heads import Heads

    heads = (each if isinstance(each, Head) else find_head(each, checkpoint) for each in sets)
    return Heads(tuple(heads), tuple(top_ks))


def load_head(path: str, checkpoint: Checkpoint, field: str = "labels.head") -> Head:
    """Read a compiled head.  Raises `ModelError` if it is none, or one of another model."""
    head = Head.load(path)
    if head.model_digest != checkpoint.digest:
        raise ModelError(
            f"{field}: {path} was compiled for a model with other weights (digest {head.model_digest[:16]}) than "
            f"{checkpoint.name} ({checkpoint.digest[:16]}); compile it again with `zsic labels compile --model`"
        )
    return head


def find_head(label_set: LabelSet, checkpoint: Checkpoint, *, n_kept: int = N_KEPT) -> Head:
    """The head of these labels for this checkpoint: from the cache, or compiled and put there.

    A file counts only if it says that it was made of these very labels, prompts and weights; by another version of
    torch it may differ in the last bits, and is made again.
    """
    import torch  # seconds of imports, which a run with nothing to do does without

    folder = cache_folder() / "heads"
    path = folder / f"{label_set.digest}-{checkpoint.digest[:16]}-torch-{torch.__version__}.safetensors"
    with contextlib.suppress(ModelError):
        head = Head.load(path)
        if _is_of(head, label_set, checkpoint) and head.matrix_CD.isfinite().all():
            return replace(head, name=label_set.name)
    from zsic.models.encoder import TextEncoder

    head = compile_head(label_set, TextEncoder(checkpoint))
    keep(path, head.to_bytes())
    with contextlib.suppress(OSError):  # another process may tidy up as well
        for old in sorted(folder.glob("*.safetensors"), key=lambda each: each.stat().st_mtime)[:-n_kept]:
            old.unlink()
    return head


def _is_of(head: Head, label_set: LabelSet, checkpoint: Checkpoint) -> bool:
    return (
        (head.labels, head.prompts) == (label_set.names, label_set.prompts())
        and head.rules == label_set.rules
        and head.question == label_set.digest
        and head.model_digest == checkpoint.digest
    )
