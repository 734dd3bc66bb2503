import os
from pathlib import Path

import pytest
import torch

from zsic.core.labels import LabelSet, load_labels
from zsic.core.spec import LabelsSpec, ModelSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import TextEncoder
from zsic.models.head_cache import find_head


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "zsic" / "heads"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checkpoints whose text tower was asked for."""
    asked: list[str] = []

    def spy(checkpoint: Checkpoint) -> TextEncoder:
        asked.append(checkpoint.name)
        return TextEncoder(checkpoint)

    monkeypatch.setattr("zsic.models.encoder.TextEncoder", spy)
    return asked


def _labels(*names: str, template: str = "a {}.") -> LabelSet:
    return load_labels(LabelsSpec(names=names, templates=(template,)))


def test_labels_are_encoded_once(tiny_checkpoint: Path, encoded: list[str]) -> None:
    checkpoint = resolve(ModelSpec(name=str(tiny_checkpoint)))
    first, again = (find_head(_labels("cat", "dog"), checkpoint) for _ in range(2))
    assert len(encoded) == 1
    assert torch.equal(first.matrix_CD, again.matrix_CD)
    assert (first.labels, first.prompts, first.scale, first.link) == (
        again.labels,
        again.prompts,
        again.scale,
        again.link,
    )


def test_other_labels_prompts_or_weights_are_another_head(
    tiny_checkpoints: dict[str, Path], encoded: list[str], folder: Path
) -> None:
    clip, siglip = (resolve(ModelSpec(name=str(tiny_checkpoints[name]))) for name in ("clip", "siglip"))
    find_head(_labels("cat", "dog"), clip)
    find_head(_labels("dog", "cat"), clip)
    find_head(_labels("cat", "dog", template="the {}"), clip)
    assert find_head(_labels("cat", "dog"), siglip).link == "sigmoid"
    assert len(encoded) == len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "exchanged", "nan"])
def test_a_file_that_is_not_what_its_name_says_is_made_again(
    damage: str, tiny_checkpoint: Path, encoded: list[str], folder: Path
) -> None:
    checkpoint = resolve(ModelSpec(name=str(tiny_checkpoint)))
    expected = find_head(_labels("cat", "dog"), checkpoint)
    (path,) = folder.iterdir()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "exchanged":
            find_head(_labels("house"), checkpoint)
            encoded.pop()
            (other,) = set(folder.iterdir()) - {path}
            path.write_bytes(other.read_bytes())
        case "nan":
            expected.matrix_CD[0, 0] = torch.nan
            expected.save(path)
            expected.matrix_CD[0, 0] = 0
    head = find_head(_labels("cat", "dog"), checkpoint)
    assert len(encoded) == 2
    assert head.labels == ("cat", "dog")
    assert head.matrix_CD.isfinite().all()
    find_head(_labels("cat", "dog"), checkpoint)
    assert len(encoded) == 2


def test_the_oldest_files_go(tiny_checkpoint: Path, encoded: list[str], folder: Path) -> None:
    checkpoint = resolve(ModelSpec(name=str(tiny_checkpoint)))
    for name in ("cat", "house", "circle"):
        for path in folder.glob("*"):  # as if an hour had passed
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
        find_head(_labels(name), checkpoint, n_kept=2)
    encoded.clear()
    find_head(_labels("house"), checkpoint, n_kept=2)
    find_head(_labels("circle"), checkpoint, n_kept=2)
    assert not encoded
    find_head(_labels("cat"), checkpoint, n_kept=2)
    assert len(encoded) == 1


def test_a_cache_that_cannot_be_written_does_not_matter(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_head(_labels("cat"), resolve(ModelSpec(name=str(tiny_checkpoint)))).labels == ("cat",)
