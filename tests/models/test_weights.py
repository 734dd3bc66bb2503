import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from zsic.core.errors import ModelError
from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.models.weights import count_image_parameters, drop_text, load

FAMILIES = ("align", "altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2")


def _resolve(folder: Path) -> Checkpoint:
    return resolve(ModelSpec(name=str(folder)))


def _change(folder: Path, tmp_path: Path, change) -> Checkpoint:
    copy = Path(shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True))
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return _resolve(copy)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_weight_is_refused(family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Of each tower a weight and a bias, and the scale: where transformers would put random numbers."""
    names = sorted(load_file(tiny_checkpoints[family] / "model.safetensors"))
    for name in {names[0], names[len(names) // 2], names[-1], next(n for n in names if n.endswith("bias"))}:
        if name == "temperature" and family == "tipsv2":
            continue
        checkpoint = _change(tiny_checkpoints[family], tmp_path, lambda tensors, name=name: tensors.pop(name))
        with pytest.raises(ModelError, match="is missing; these would be random numbers"):
            load(checkpoint)


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_weights_are_those_of_the_file(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    """Value by value, whatever transformers calls them, and however it cuts them up, on the way."""
    tensors = load_file(tiny_checkpoints[family] / "model.safetensors")
    state = load(_resolve(tiny_checkpoints[family])).state_dict()
    if family == "chinese_clip":
        # transformers zeroes the padding word's row, which nothing attends to.
        assert not state["text_model.embeddings.word_embeddings.weight"][0].any()
        for weights in (tensors, state):
            weights["text_model.embeddings.word_embeddings.weight"][0] = 0
    assert torch.equal(_values(state), _values(tensors))


def _values(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors.values()]).sort().values


def test_a_weight_of_another_shape_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        tensors["visual_projection.weight"] = torch.zeros(12, 17)

    with pytest.raises(ModelError, match=r"visual_projection.weight is \(12, 17\) instead of \(12, 16\)"):
        load(_change(tiny_checkpoint, tmp_path, widen))


def test_old_position_tables_are_harmless(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    model = load(_change(tiny_checkpoint, tmp_path, add))
    assert "text_model.embeddings.position_ids" not in model.state_dict()


def test_tipsv2_without_temperature_takes_its_configs(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = _change(tiny_checkpoints["tipsv2"], tmp_path, lambda tensors: tensors.pop("temperature"))
    value = checkpoint.read_json("config.json")["temperature_init_value"]
    assert TextEncoder(checkpoint).scale == pytest.approx(1 / value)


def test_clipseg_with_its_decoder(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The published checkpoints hold the segmentation model; the towers in it are what counts."""
    folder = Path(shutil.copytree(tiny_checkpoints["clipseg"], tmp_path / "whole"))
    whole = transformers.CLIPSegForImageSegmentation.from_pretrained(folder, config=_with_decoder(folder))
    whole.save_pretrained(folder)
    assert any(key.startswith("decoder.") for key in load_file(folder / "model.safetensors"))
    pixels = torch.randint(0, 255, (2, 40, 40, 3), dtype=torch.uint8).numpy()
    plain = ImageEncoder(_resolve(tiny_checkpoints["clipseg"])).encode(pixels)
    assert torch.equal(ImageEncoder(_resolve(folder)).encode(pixels), plain)


def _with_decoder(folder: Path) -> transformers.CLIPSegConfig:
    config = transformers.CLIPSegConfig.from_pretrained(folder)
    config.extract_layers, config.reduce_dim = [0, 1], 8
    config.decoder_num_attention_heads, config.decoder_intermediate_size = 2, 8
    return config


@pytest.mark.parametrize("n_bytes", [0, 4, 200, 20_000])
def test_a_file_cut_short_is_refused(tiny_checkpoint: Path, tmp_path: Path, n_bytes: int) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "cut"))
    os.truncate(copy / "model.safetensors", n_bytes)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(_resolve(copy))


@pytest.mark.parametrize(
    "head",
    [
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{",
        (10**8).to_bytes(8, "little") + b"{" + b" " * 1000,
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offs',
        (80).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'.ljust(80)
        + bytes(8),
    ],
)
def test_a_header_that_lies_is_refused(tiny_checkpoint: Path, tmp_path: Path, head: bytes) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "lies"))
    (copy / "model.safetensors").write_bytes(head)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(_resolve(copy))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_planted_pickle_is_not_run(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "planted"))
    canary = tmp_path / "canary"
    (copy / name).write_bytes(pickle.dumps(_Canary(canary)))
    if name == "pytorch_model.bin":
        load(_resolve(copy))  # the safetensors beside it are taken
        (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        load(_resolve(copy))
    assert not canary.exists()
    pickle.loads((copy / name).read_bytes())
    assert canary.exists()


def test_the_config_does_not_choose_the_attention(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """An `attn_implementation` of `owner/kernel` would be code to fetch."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "kernel"))
    config = json.loads((copy / "config.json").read_text())
    config["attn_implementation"] = "someone/kernel"
    config["text_config"]["attn_implementation"] = "someone/kernel"
    (copy / "config.json").write_text(json.dumps(config))
    model = load(_resolve(copy))
    assert model.config._attn_implementation == model.config.text_config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", FAMILIES)
def test_image_parameters_are_counted_without_weights(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    """Means and variances of a net of convolutions, which are no parameters, take memory too."""
    checkpoint = _resolve(tiny_checkpoints[family])
    model = load(checkpoint)
    n_all = _count(model)
    drop_text(model)
    assert count_image_parameters(checkpoint) == _count(model) < n_all


def _count(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.state_dict().values() if weight.is_floating_point())
