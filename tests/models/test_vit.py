"""Own towers and tokens are transformers', to the bit; and what is not plain is left to transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import transformers
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.config import read_plain_config
from zsic.models.tokenizer import _load_plain as load_plain_tokenizer
from zsic.models.tokenizer import _OfTransformers
from zsic.models.tower import TorchTower
from zsic.models.vit import load_plain
from zsic.models.weights import load, load_image_tower, load_text_tower

PLAIN = ("clip", "siglip", "demo")


@pytest.fixture(params=PLAIN)
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Checkpoint:
    return resolve(ModelSpec(name=str(tiny_checkpoints.get(request.param, request.param))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_image_embeddings_are_transformers(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    ours, theirs = load_plain(checkpoint, "image", dtype), load(checkpoint, dtype=dtype)
    assert ours is not None
    size = theirs.config.vision_config.image_size
    x_B3HW = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        found, expected = (each.get_image_features(pixel_values=x_B3HW).pooler_output for each in (ours, theirs))
        assert torch.equal(found, expected)
        assert torch.equal(TorchTower(ours)(x_B3HW), TorchTower(theirs)(x_B3HW))


@pytest.mark.parametrize("lengths", [(6, 6), (6, 3, 1), (1,)])
@pytest.mark.parametrize("masked", [False, True])
def test_text_embeddings_are_transformers(checkpoint: Checkpoint, lengths: tuple[int, ...], masked: bool) -> None:
    ours, theirs = load_plain(checkpoint, "text"), load(checkpoint)
    assert ours is not None
    config = theirs.config.text_config
    token_TL = torch.randint(3, config.vocab_size - 2, (len(lengths), max(lengths)))
    mask_TL = torch.zeros_like(token_TL)
    for row, n in enumerate(lengths):
        token_TL[row, n - 1 :] = config.eos_token_id if config.eos_token_id < config.vocab_size else 2
        mask_TL[row, :n] = 1
    given = {"input_ids": token_TL, **({"attention_mask": mask_TL} if masked else {})}
    with torch.inference_mode():
        found, expected = (each.get_text_features(**given).pooler_output for each in (ours, theirs))
    assert torch.equal(found, expected)


def test_only_one_tower_is_read(checkpoint: Checkpoint) -> None:
    image, text = (load_plain(checkpoint, part) for part in ("image", "text"))  # type: ignore[arg-type]
    assert image is not None
    assert text is not None
    assert not [name for name in image.state_dict() if "text" in name]
    assert not [name for name in text.state_dict() if "vision" in name]
    assert {*image.state_dict(), *text.state_dict()} == {*load(checkpoint).state_dict()}
    assert not any(weight.is_meta or weight.requires_grad for weight in image.parameters())


def test_a_weight_is_rounded_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Files of half precision, which published ones often are."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "half"))
    tensors = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    ours, theirs = (each(_resolve(copy)) for each in (load_image_tower, load))
    assert not isinstance(ours, transformers.PreTrainedModel)
    for name, weight in ours.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, theirs.state_dict()[name])


def test_shards_are_one_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "shards"))
    whole = transformers.CLIPModel.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    whole.save_pretrained(copy, max_shard_size="10KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    ours, theirs = (load_plain(_resolve(folder), "image") for folder in (copy, tiny_checkpoint))
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())


Fields = dict[str, Any]


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["vision_config"].clear(),
        lambda config: config["text_config"].clear(),
        lambda config: config.pop("text_config"),
        lambda config: config.update(vision_config=None),
        lambda config: config["vision_config"].update(hidden_act="gelu", layer_norm_eps=0.25, some_field=7),
        lambda config: config.update(vision_config_dict={"num_hidden_layers": 3}, text_config_dict=None),
        lambda config: config.update(text_config_dict={}, projection_dim=99),
        lambda config: config["text_config"].update(eos_token_id=2, pad_token_id=0, max_position_embeddings=5),
    ],
)
def test_configs_are_read_as_transformers_reads_them(
    family: str, change: Callable[[Fields], object], tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """With its defaults for what a file leaves out."""
    folder = _with_config(tiny_checkpoints[family], tmp_path, change)
    ours, theirs = read_plain_config(_resolve(folder)), transformers.AutoConfig.from_pretrained(folder)
    if ours is None:
        assert family == "siglip"
        assert "projection_dim" in (folder / "config.json").read_text()
        return
    for part in ("vision_config", "text_config"):
        fields = vars(getattr(ours, part))
        assert fields == {**{name: getattr(getattr(theirs, part), name) for name in fields}, **_unset(fields)}
    assert ours.projection_dim == getattr(theirs, "projection_dim", None)


def _unset(fields: Fields) -> Fields:
    """transformers fills this one in; ours does where it is used."""
    return {"projection_size": None} if fields.get("projection_size", 0) is None else {}


def _drop(name: str) -> Callable[[Path], object]:
    return lambda folder: _with_weights(folder, lambda tensors: tensors.pop(name))


def _widen(name: str) -> Callable[[Path], object]:
    return lambda folder: _with_weights(folder, lambda tensors: tensors.update({name: torch.zeros(3, 5)}))


def _config(part: str, **fields: Any) -> Callable[[Path], object]:
    return lambda folder: _change_config(folder, lambda config: config[part].update(fields))


@pytest.mark.parametrize(
    "change",
    [
        _drop("visual_projection.weight"),
        _drop("text_model.encoder.layers.1.mlp.fc2.bias"),
        _widen("vision_model.embeddings.position_embedding.weight"),
        _widen("text_projection.weight"),
        lambda folder: _with_weights(folder, lambda tensors: None, metadata={"format": "tf"}),
        lambda folder: _with_weights(folder, lambda tensors: tensors.update(logit_scale=torch.tensor(3))),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100),
        _config("vision_config", hidden_act="relu"),
        _config("vision_config", num_attention_heads=3),
        _config("vision_config", num_attention_heads=0),
        _config("vision_config", patch_size=[8, 8]),
        _config("text_config", hidden_size="16"),
    ],
)
def test_what_is_not_plain_is_left_to_transformers(
    change: Callable[[Path], object], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "changed"))
    change(copy)
    assert load_plain(_resolve(copy), "image") is None
    assert load_plain(_resolve(copy), "text") is None


@pytest.mark.parametrize("family", ["align", "altclip", "chinese_clip", "clipseg", "metaclip_2", "tipsv2"])
def test_other_families_are_left_to_transformers(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = _resolve(tiny_checkpoints[family])
    assert isinstance(load_image_tower(checkpoint), transformers.PreTrainedModel)
    assert isinstance(load_text_tower(checkpoint), transformers.PreTrainedModel)
    assert load_plain_tokenizer(checkpoint) is None


# --- tokens

# All that CLIP's rules treat apart: case, spaces, accents in two spellings, digits, shortened words, and its own marks.
TEXTS = st.lists(
    st.text(st.sampled_from("aBc éÉ\u0301'st 12\t\n<|>北🙂.-"))
    | st.sampled_from(["<|endoftext|>x", "<|STARTOFTEXT|>", ""]),
    min_size=1,
    max_size=4,
)


@hypothesis.given(texts=TEXTS, limit=st.integers(2, 20), fill=st.booleans())
def test_tokens_are_transformers(texts: list[str], limit: int, fill: bool) -> None:
    ours, theirs = _tokenizers()
    assert ours.count(texts) == theirs.count(texts)
    found, expected = (each.encode(texts, limit, fill=fill) for each in (ours, theirs))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _tokenizers(made: list[Any] = []) -> list[Any]:  # noqa: B006  Made once, for all examples.
    if not made:
        checkpoint = resolve(ModelSpec())
        made += [load_plain_tokenizer(checkpoint), _OfTransformers(checkpoint)]
        assert made[0].limit == made[1].limit
    return made


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda file: file["normalizer"]["normalizers"].pop()),
        ("tokenizer.json", lambda file: file["added_tokens"].append({"id": 9, "content": "cat", "special": False})),
        ("tokenizer.json", lambda file: file["added_tokens"][0].update(lstrip=True)),
        ("tokenizer.json", lambda file: file["model"].update(dropout=0.5)),
        ("tokenizer.json", lambda file: file["model"].update(vocab=[])),
        ("tokenizer.json", lambda file: file.update(post_processor=None)),
        ("tokenizer_config.json", lambda file: file.update(pad_token="!")),
        ("tokenizer_config.json", lambda file: file.update(tokenizer_class="PreTrainedTokenizerFast")),
        ("tokenizer_config.json", lambda file: file.pop("model_max_length")),
        ("special_tokens_map.json", lambda file: file.update(pad_token="!")),
    ],
)
def test_a_tokenizer_with_settings_of_its_own_is_left_to_transformers(
    file: str, change: Callable[[Fields], object], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(resolve(ModelSpec()).folder, tmp_path / "changed"))
    assert load_plain_tokenizer(_resolve(copy)) is not None
    fields = json.loads((copy / file).read_text()) if (copy / file).exists() else {}
    change(fields)
    (copy / file).write_text(json.dumps(fields))
    assert load_plain_tokenizer(_resolve(copy)) is None


def test_a_tokenizer_of_our_own_is_left_out_where_there_is_no_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "without"))
    (copy / "tokenizer.json").unlink()
    assert load_plain_tokenizer(_resolve(copy)) is None


def _resolve(folder: Path) -> Checkpoint:
    return resolve(ModelSpec(name=str(folder)))


def _with_config(folder: Path, tmp_path: Path, change: Callable[[Fields], object]) -> Path:
    copy = Path(shutil.copytree(folder, tmp_path / "configured"))
    _change_config(copy, change)
    return copy


def _change_config(folder: Path, change: Callable[[Fields], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def _with_weights(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], metadata: dict[str, str] | None = None
) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata or {"format": "pt"})
