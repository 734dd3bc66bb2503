import pytest
import torch

from zsic.models.batch_size import SIZES, choose


def test_the_smallest_that_is_nearly_best() -> None:
    rates = {32: 50.0, 64: 80.0, 128: 99.0, 256: 100.0, 512: 100.5, 1024: 90.0}
    assert choose(rates.__getitem__) == 128


def test_larger_ones_are_not_tried_past_the_best() -> None:
    tried = []

    def measure(size: int) -> float:
        tried.append(size)
        return {32: 100.0, 64: 97.0}[size]

    assert choose(measure) == 32
    assert tried == [32, 64]


@pytest.mark.parametrize("room", [16, 64, 300])
def test_memory_bounds_it(room: int) -> None:
    def measure(size: int) -> float:
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return float(size)

    assert choose(measure) == max((size for size in SIZES if size <= room), default=16)
