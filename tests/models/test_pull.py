import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zsic import Classifier
from zsic.core.errors import ModelError
from zsic.core.spec import ModelSpec
from zsic.models.checkpoint import resolve
from zsic.models.pull import pull


@pytest.fixture
def source(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of the old kind: one pickle, with a tensor under two names and what is no tensor."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "old"))
    tensors = load_file(folder / "model.safetensors")
    shared = torch.arange(77)[None]
    extra = {"text_model.embeddings.position_ids": shared, "vision_model.embeddings.position_ids": shared}
    extra["text_model.embeddings.transposed"] = torch.arange(6).reshape(2, 3).T
    torch.save({**tensors, **extra, "step": 7}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "README.md").write_text("read me")
    return folder


def test_a_pickle_becomes_safetensors_with_its_origin(
    source: Path, tiny_checkpoint: Path, tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    checkpoint = pull(str(source), tmp_path / "deep" / "new")
    folder = tmp_path / "deep" / "new"
    assert checkpoint.folder == folder
    assert not list(folder.glob("*.bin"))
    assert not (folder / "README.md").exists()
    original = load_file(tiny_checkpoint / "model.safetensors")
    written = load_file(folder / "model.safetensors")
    assert all(torch.equal(written[key], value) for key, value in original.items())
    record = json.loads((folder / "zsic.json").read_text())
    assert record == {"id": str(source), "revision": None, "digest": checkpoint.digest}
    assert resolve(ModelSpec(name=str(folder))).digest == checkpoint.digest
    answers = Classifier(str(folder), ["cat", "house"]).predict(pictures["wide.jpg"])
    assert answers == Classifier(str(tiny_checkpoint), ["cat", "house"]).predict(pictures["wide.jpg"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new"]


def test_pickles_in_shards(source: Path, tmp_path: Path) -> None:
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    names = sorted(key for key in state if isinstance(state[key], torch.Tensor))
    for i, part in enumerate((names[::2], names[1::2]), 1):
        torch.save({key: state[key] for key in part}, source / f"pytorch_model-0000{i}-of-00002.bin")
    (source / "pytorch_model.bin").unlink()
    pull(str(source), tmp_path / "new")
    assert set(load_file(tmp_path / "new" / "model.safetensors")) == set(names)


def test_safetensors_are_copied_as_they_are(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = pull(str(tiny_checkpoint), tmp_path / "new")
    assert checkpoint.digest == resolve(ModelSpec(name=str(tiny_checkpoint))).digest


def test_an_incomplete_checkpoint_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"text_projection\.weight is missing"):
        pull(str(copy), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_planted_pickle_is_not_run(source: Path, tmp_path: Path, save) -> None:
    canary = tmp_path / "canary"
    save({"a": torch.zeros(2), "b": _Canary(canary)}, source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors, or is damaged, and was not run"):
        pull(str(source), tmp_path / "new")
    assert not canary.exists()
    assert not (tmp_path / "new").exists()


def test_an_output_with_something_in_it_is_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    pull(str(tiny_checkpoint), tmp_path / "new")  # an empty folder will do
    with pytest.raises(ModelError, match=r"--output: .* is not an empty folder"):
        pull(str(tiny_checkpoint), tmp_path / "new")


def test_no_weights_of_any_kind(source: Path, tmp_path: Path) -> None:
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        pull(str(source), tmp_path / "new")


def test_a_hub_id_that_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="asking the hub for zsic-tests/no-such-checkpoint"):
        pull("zsic-tests/no-such-checkpoint", tmp_path / "new")
