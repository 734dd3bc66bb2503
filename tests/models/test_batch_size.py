from pathlib import Path

import pytest
import torch

from zsic.models.batch_size import SIZES, choose, remember


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


@pytest.mark.parametrize("before", [None, "", "[]", '{"a": 0}', '{"a": "64"}'])
def test_it_is_found_once_and_damage_is_found_again(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "zsic" / "batch_sizes.json"
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
    answers = iter([64, 128])
    assert [remember(key, lambda: next(answers)) for key in ("a", "a", "b", "a", "b")] == [64, 64, 128, 64, 128]
    assert list(path.parent.iterdir()) == [path]
