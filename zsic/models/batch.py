"""Batches that break the encoder are split: too large ones for good, ones with a picture that breaks them for once.

Shape legend: B images of a batch, H W pixels, D embedding width.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from zsic.core.errors import IncompleteError

Encode = Callable[[npt.NDArray[np.uint8]], torch.Tensor]

# What is no `OutOfMemoryError` and means it all the same: the CPU's allocator, and libraries that allocate themselves.
_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def halve(n_images: int, error: Exception) -> int:
    """How many images to try next where so many ran out of memory.

    Raises the error if it says something else, and `IncompleteError` where there is nothing left to halve: all
    pictures are of one size, so it is not the picture's fault.
    """
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not is_memory and not any(words in str(error) for words in _OUT_OF_MEMORY):
        raise error
    if n_images > 1:
        return n_images // 2
    raise IncompleteError(
        "the encoder has not the memory for a single image; give it more (lower execution.encoders, or raise "
        "execution.num_gpus if encoders share a GPU), or see what else holds it; the same command resumes"
    ) from None


@torch.inference_mode()
def encode_apart(encode: Encode, pixels_BHW3: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Encode a batch; rows [B, D] are not finite only where the picture by itself gives such a row.

    Those that are not are encoded again, by themselves and in halves if it was all of them: what one picture did to
    its neighbours is undone.
    """
    image_BD = encode(pixels_BHW3)
    bad_B = (~image_BD.isfinite().all(dim=1)).cpu().numpy()
    if len(bad_B) == 1 or not bad_B.any():
        return image_BD
    bad_rows = np.flatnonzero(bad_B)
    halves = np.array_split(bad_rows, 2 if bad_B.all() else 1)
    image_BD = image_BD.clone()
    for rows in halves:
        image_BD[torch.from_numpy(rows).to(image_BD.device)] = encode_apart(encode, pixels_BHW3[rows])
    return image_BD
