import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers

from zsic.core.errors import ModelError
from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder, TextEncoder, resolve_dtype

FAMILIES = ("align", "altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2")


def _resolve(folder: Path) -> Checkpoint:
    return resolve(ModelSpec(name=str(folder)))


def _pixels(encoder: ImageEncoder, n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *encoder.geometry.size, 3), np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_unit_vectors_of_both_towers_width(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = _resolve(tiny_checkpoints[family])
    encoder = ImageEncoder(checkpoint)
    image_BD = encoder.encode(_pixels(encoder, 3))
    text_TD = TextEncoder(checkpoint).encode(["cat", "red circle"])
    assert image_BD.shape == (3, encoder.dim)
    assert text_TD.shape == (2, encoder.dim)
    assert image_BD.dtype == torch.float32
    assert text_TD.dtype == np.float32
    assert torch.allclose(image_BD.norm(dim=1), torch.ones(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(text_TD, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_in_a_batch_do_not_matter(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    encoder = ImageEncoder(_resolve(tiny_checkpoints[family]))
    pixels = _pixels(encoder, 4)
    together = encoder.encode(pixels)
    alone = torch.cat([encoder.encode(pixels[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=2e-6)


def test_only_one_tower_is_kept(tiny_checkpoint: Path) -> None:
    checkpoint = _resolve(tiny_checkpoint)
    assert not any(name.startswith("text") for name, _ in ImageEncoder(checkpoint)._tower.named_parameters())
    assert not any(name.startswith("vis") for name, _ in TextEncoder(checkpoint)._model.named_parameters())


def test_read_only_pixels_are_taken(tiny_checkpoint: Path, recwarn: pytest.WarningsRecorder) -> None:
    """As Arrow hands them out."""
    encoder = ImageEncoder(_resolve(tiny_checkpoint))
    pixels = _pixels(encoder, 2)
    frozen = np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)
    assert torch.equal(encoder.encode(frozen), encoder.encode(pixels))
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def _with_projection(folder: Path, tmp_path: Path, value: float) -> Checkpoint:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    tensors["visual_projection.weight"].fill_(value)
    tensors["text_projection.weight"].fill_(value)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return _resolve(copy)


def test_zero_vectors_stay_zero(tiny_checkpoint: Path, tmp_path: Path) -> None:
    encoder = ImageEncoder(_with_projection(tiny_checkpoint, tmp_path, 0.0))
    assert not encoder.encode(_pixels(encoder, 2)).any()


def test_nan_stays_visible_for_images_and_is_an_error_for_labels(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = _with_projection(tiny_checkpoint, tmp_path, float("nan"))
    encoder = ImageEncoder(checkpoint)
    assert encoder.encode(_pixels(encoder, 2)).isnan().all()
    with pytest.raises(ModelError, match="text tower returned NaN"):
        TextEncoder(checkpoint).encode(["cat"])


def test_dtype(tiny_checkpoint: Path) -> None:
    assert resolve_dtype("auto", "cpu") == torch.float32
    assert resolve_dtype("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(ModelError, match=r"model\.dtype is 'int8'; use auto"):
        resolve_dtype("int8", "cpu")
    checkpoint = _resolve(tiny_checkpoint)
    full, half = ImageEncoder(checkpoint), ImageEncoder(checkpoint, dtype="bfloat16")
    pixels = _pixels(full, 3)
    assert half.encode(pixels).dtype == torch.float32
    assert 1e-5 < (half.encode(pixels) - full.encode(pixels)).abs().max() < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(tiny_checkpoint: Path) -> None:
    checkpoint = _resolve(tiny_checkpoint)
    cpu, gpu = ImageEncoder(checkpoint), ImageEncoder(checkpoint, device="cuda", dtype="float32")
    pixels = _pixels(cpu, 5)
    assert gpu.encode(pixels).is_cuda
    assert torch.allclose(gpu.encode(pixels).cpu(), cpu.encode(pixels), atol=1e-4)
    assert ImageEncoder(checkpoint, device="cuda").dtype == resolve_dtype("auto", "cuda")


def test_a_processor_that_does_not_fit_its_tower_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(config | {"crop_size": 30}))
    with pytest.raises(ModelError, match=r"takes \(32, 32\) pixels, its image processor makes \(30, 30\)"):
        ImageEncoder(_resolve(copy))


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_keep_their_order_and_do_not_see_each_other(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    encoder = TextEncoder(_resolve(tiny_checkpoints[family]))
    texts = ["house", "a very big red circle and a small green triangle", "cat", "this is a cat", "house"]
    together = encoder.encode(texts, batch_size=2)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert abs(together[0] - together[2]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_are_counted_and_cut(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    encoder = TextEncoder(_resolve(tiny_checkpoints[family]))
    words = ["cat"] * 200
    [n_tokens] = encoder.count_tokens([" ".join(words)])
    assert n_tokens >= 200 > encoder.token_limit
    marks = n_tokens - 200
    fitting = words[: encoder.token_limit - marks]
    assert encoder.count_tokens([" ".join(fitting)]) == [encoder.token_limit]
    cut, whole = encoder.encode([" ".join(words), " ".join(fitting)])
    np.testing.assert_allclose(cut, whole, atol=2e-6)


def test_no_text(tiny_checkpoint: Path) -> None:
    encoder = TextEncoder(_resolve(tiny_checkpoint))
    assert encoder.count_tokens([]) == []
    with pytest.raises(ValueError, match="no text"):
        encoder.encode([])


def test_siglip_2_with_gemmas_tokenizer_is_lower_cased(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The tower was trained on lower case; Gemma's tokenizer keeps case, and so transformers' pipeline does too."""
    copy = Path(shutil.copytree(tiny_checkpoints["siglip"], tmp_path / "copy"))
    inner = Tokenizer.from_file(str(copy / "tokenizer.json"))
    inner.normalizer = normalizers.NFC()
    inner.save(str(copy / "tokenizer.json"))
    plain = TextEncoder(_resolve(copy))
    assert abs(plain.encode(["Red Circle"]) - plain.encode(["red circle"])).max() > 1e-3
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GemmaTokenizer"}))
    gemma = TextEncoder(_resolve(copy))
    np.testing.assert_array_equal(gemma.encode(["Red Circle"]), gemma.encode(["red circle"]))


def test_a_broken_tokenizer_is_a_model_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (copy / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(ModelError, match=r"tokenizer of .* cannot be loaded"):
        TextEncoder(_resolve(copy))
