"""The int8 tower: close to float32's vectors, made once, for CPUs that have its packages."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from zsic.core.cache import cache_folder
from zsic.core.errors import ModelError
from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.classifier import Classifier
from zsic.models.encoder import ImageEncoder

# One worker imports the exporter and makes CLIP's tower, which the cache then has for every test that reads it.
pytestmark = pytest.mark.xdist_group("int8")


def _resolve(folder: Path) -> Checkpoint:
    return resolve(ModelSpec(name=str(folder)))


def _pixels(encoder: ImageEncoder, n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *encoder.geometry.size, 3), np.uint8)


def _assert_nearly_float32(quick: ImageEncoder, checkpoint: Checkpoint) -> None:
    exact = ImageEncoder(checkpoint)
    assert quick.dim == exact.dim
    pixels = _pixels(exact, 9)
    image_BD = quick.encode(pixels)
    assert image_BD.dtype == torch.float32
    assert torch.allclose(image_BD.norm(dim=1), torch.ones(9), atol=1e-6)
    assert float((image_BD * exact.encode(pixels)).sum(dim=1).min()) > 0.99
    assert not torch.equal(image_BD, exact.encode(pixels))  # it is another arithmetic
    assert quick.encode(pixels[:1]).shape == (1, exact.dim)


# One with a class token, and one whose pictures have another size than its position table.  It takes seconds to make a
# tower, so that of SigLIP, which has no class token, is compared below, where it is made without a cache.
@pytest.mark.parametrize("family", ["clip", pytest.param("clipseg", marks=pytest.mark.variant)])
def test_vectors_are_nearly_those_of_float32(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = _resolve(tiny_checkpoints[family])
    _assert_nearly_float32(ImageEncoder(checkpoint, dtype="int8"), checkpoint)


def test_it_is_made_once_and_then_needs_no_weights(make_checkpoint: object, tmp_path: Path) -> None:
    folder = make_checkpoint("clip", tmp_path / "clip")  # type: ignore[operator]
    checkpoint = _resolve(folder)
    first = ImageEncoder(checkpoint, dtype="int8")
    assert list((cache_folder() / "int8").glob(f"{checkpoint.digest}-*.onnx"))
    (folder / "model.safetensors").unlink()
    again = ImageEncoder(checkpoint, dtype="int8")
    pixels = _pixels(first, 5)
    assert torch.equal(first.encode(pixels), again.encode(pixels))


def test_a_cache_that_cannot_be_written_costs_time_alone(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    checkpoint = _resolve(tiny_checkpoints["siglip"])
    _assert_nearly_float32(ImageEncoder(checkpoint, dtype="int8"), checkpoint)


def test_threads_may_call(tiny_checkpoint: Path) -> None:
    encoder = ImageEncoder(_resolve(tiny_checkpoint), dtype="int8", threads=2)
    batches = [_pixels(encoder, n) for n in (3, 4, 5, 6)]
    alone = [encoder.encode(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, batches))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_tower_of_convolutions_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"model\.quantize: the image tower of .*align has no product to make int8"):
        ImageEncoder(_resolve(tiny_checkpoints["align"]), dtype="int8")


def test_missing_packages_are_named(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # for Python's imports, a package that is not there
    with pytest.raises(
        ModelError, match=r"needs onnxscript on every machine; .*pip install -c constraints.txt '\.\[int8\]'"
    ):
        ImageEncoder(_resolve(tiny_checkpoint), dtype="int8")


def test_python_takes_it_too(tiny_checkpoint: Path, pictures: dict[str, bytes]) -> None:
    labels = ["red circle", "house"]
    quick = Classifier(ModelSpec(name=str(tiny_checkpoint), quantize="int8"), labels)
    exact = Classifier(str(tiny_checkpoint), labels)
    for data in pictures.values():
        scores = {answer["label"]: answer["score"] for answer in quick.predict(data)}
        expected = {answer["label"]: answer["score"] for answer in exact.predict(data)}
        assert scores == pytest.approx(expected, abs=0.1)
        assert scores != expected
