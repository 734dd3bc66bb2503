"""Batches that break a real encoder: too large for the memory, or with a picture that it cannot bear."""

from pathlib import Path

import numpy as np
import pytest
import torch

from zsic.core.errors import IncompleteError
from zsic.core.spec import ModelSpec
from zsic.models.batch import encode_apart, halve
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder

WHITE = 255


class Delicate:
    """A tiny CLIP in float16 whose first layer overflows on white pictures; it counts what it encodes."""

    def __init__(self, folder: Path, *, contagious: bool) -> None:
        self._encoder = ImageEncoder(resolve(ModelSpec(name=str(folder))), dtype="float16")
        self.size = self._encoder.geometry.size
        self.batches: list[int] = []
        first = self._encoder._tower.model.vision_model.embeddings.patch_embedding
        with torch.no_grad():
            first.weight[0] = 5e4 / first.weight[0].numel()  # white is 2, and float16 ends at 65,504
        if contagious:
            first.register_forward_hook(lambda *arguments: arguments[2] + 0 * arguments[2].sum(dim=0, keepdim=True))

    def encode(self, pixels_BHW3: np.ndarray) -> torch.Tensor:
        self.batches.append(len(pixels_BHW3))
        return self._encoder.encode(pixels_BHW3)

    def grey(self, n: int) -> np.ndarray:
        return np.random.default_rng(0).integers(105, 125, (n, *self.size, 3), np.uint8)


@pytest.fixture(params=[False, True], ids=["harmless", "contagious"])
def delicate(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Delicate:
    return Delicate(tiny_checkpoint, contagious=request.param)


@pytest.mark.parametrize("culprits", [[], [0], [5], [2, 3], [0, 4, 7], list(range(8))])
def test_only_culprits_are_not_finite_and_their_neighbours_get_their_own_answer(
    delicate: Delicate, culprits: list[int]
) -> None:
    pixels_BHW3 = delicate.grey(8)
    expected_BD = torch.cat([delicate.encode(pixels_BHW3[at : at + 1]) for at in range(8)])
    assert expected_BD.isfinite().all()
    pixels_BHW3[culprits] = WHITE
    image_BD = encode_apart(delicate.encode, pixels_BHW3)
    finite_B = image_BD.isfinite().all(dim=1)
    assert np.flatnonzero(~finite_B.numpy()).tolist() == culprits
    assert torch.allclose(image_BD[finite_B], expected_BD[finite_B], atol=5e-3)


def test_a_whole_batch_is_encoded_once(delicate: Delicate) -> None:
    encode_apart(delicate.encode, delicate.grey(8))
    assert delicate.batches == [8]


def test_a_culprit_costs_little(delicate: Delicate) -> None:
    pixels_BHW3 = delicate.grey(64)
    pixels_BHW3[17] = WHITE
    encode_apart(delicate.encode, pixels_BHW3)
    assert sum(delicate.batches) <= 64 * 3


def test_memory_that_runs_out_halves_the_batch() -> None:
    # Asked for in earnest, so that the words are those of this torch.
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory."), MemoryError()):
        assert halve(9, error) == 4
        with pytest.raises(IncompleteError, match=r"lower execution\.encoders"):
            halve(1, error)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        halve(8, RuntimeError("shape mismatch"))
