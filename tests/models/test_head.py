import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zsic.core.errors import ModelError
from zsic.core.labels import LabelSet, load_labels
from zsic.core.scoring import Link
from zsic.core.spec import LabelsSpec, ModelSpec
from zsic.models import head as head_module
from zsic.models.checkpoint import resolve
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, compile_head


@dataclass
class HashTower:
    """A text tower without weights: the vector of a text is its hash."""

    digest: str = "abc"
    link: Link = "softmax"
    scale: float = 10.0
    bias: float = 0.0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8) for text in texts]
        text_TD = np.stack(rows).astype(np.float32) - 127
        return text_TD / np.linalg.norm(text_TD, axis=1, keepdims=True)


def _labels(*names: str, templates: tuple[str, ...] = ("a {}.", "the {}", "{} here")) -> LabelSet:
    return load_labels(LabelsSpec(names=names, templates=templates))


def test_ensemble_is_open_clips() -> None:
    label_set, tower = _labels("cat", "dog"), HashTower()
    head = compile_head(replace(label_set, name="animals"), tower)
    for row, prompts in zip(head.matrix_CD, label_set.prompts(), strict=True):
        mean = torch.from_numpy(tower.encode(prompts)).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())
    assert head.name == "animals"
    assert head.labels == ("cat", "dog")
    assert head.matrix_CD.dtype == torch.float32
    assert head.prompts == label_set.prompts()


def test_with_a_real_tower_it_takes_the_models_link(tiny_checkpoints: dict[str, Path]) -> None:
    checkpoint = resolve(ModelSpec(name=str(tiny_checkpoints["siglip"])))
    head = compile_head(_labels("cat", "red circle"), TextEncoder(checkpoint))
    assert head.link == "sigmoid"
    assert head.scale == pytest.approx(27.0, rel=1e-6)
    assert head.bias == pytest.approx(-3.5)
    assert head.model_digest == checkpoint.digest
    torch.testing.assert_close(head.matrix_CD.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("at_once", [1, 3, 4, 7])
def test_grouping_does_not_matter(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    label_set = _labels("cat", "dog", "bird", "house", "tree")
    whole = compile_head(label_set, HashTower())
    monkeypatch.setattr(head_module, "_PROMPTS_AT_ONCE", at_once)
    assert torch.equal(compile_head(label_set, HashTower()).matrix_CD, whole.matrix_CD)


def test_opposite_prompts_do_not_make_nan() -> None:
    class Opposite(HashTower):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[1, 0], [-1, 0]], np.float32)[: len(texts)]

    head = compile_head(_labels("cat", templates=("a {}", "no {}")), Opposite())
    assert head.matrix_CD.isfinite().all()


def test_digest_is_of_the_inputs() -> None:
    digest = compile_head(_labels("cat", "dog"), HashTower()).digest
    assert compile_head(_labels("cat", "dog"), HashTower(scale=11.0)).digest == digest
    for other in (
        compile_head(_labels("dog", "cat"), HashTower()),
        compile_head(_labels("cat", "dog", templates=("a {}.",)), HashTower()),
        compile_head(_labels("cat", "dog"), HashTower(digest="abd")),
    ):
        assert other.digest != digest


def test_a_saved_head_is_the_same(tmp_path: Path) -> None:
    head = compile_head(
        _labels("cat", "Ärger ☂", "dog"), HashTower(link="sigmoid", scale=117.33079528808594, bias=-12.9)
    )
    head.save(tmp_path / "head.safetensors")
    loaded = Head.load(tmp_path / "head.safetensors")
    assert torch.equal(loaded.matrix_CD, head.matrix_CD)
    for field in ("name", "labels", "scale", "bias", "link", "prompts", "model_digest", "method", "digest"):
        assert getattr(loaded, field) == getattr(head, field)


def test_what_is_no_head_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "text").write_text("cat")
    for path in (tmp_path / "text", tmp_path / "nothing", tiny_checkpoint / "model.safetensors"):
        with pytest.raises(ModelError, match="is not a head that zsic has saved"):
            Head.load(path)


def test_rank_gives_links_scores_best_first() -> None:
    head = compile_head(_labels("cat", "dog", "bird"), HashTower())
    image_BD = head.matrix_CD[[2, 0]]
    top = head.rank(image_BD, 3)
    assert top.label_index_BK[:, 0].tolist() == [2, 0]
    torch.testing.assert_close(top.similarity_BK[:, 0], torch.ones(2))
    torch.testing.assert_close(top.score_BK.sum(dim=1), torch.ones(2))
    assert head.to_device("cpu").rank(image_BD, 1).score_BK.shape == (2, 1)


def test_many_labels_are_ranked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    head = compile_head(_labels(*(f"label {n}" for n in range(50))), HashTower())
    image_BD = torch.nn.functional.normalize(torch.randn(13, 32, generator=torch.Generator().manual_seed(0)))
    whole = head.rank(image_BD, 7)
    monkeypatch.setattr(head_module, "_SCORES_AT_ONCE", 200)
    for ours, theirs in zip(head.rank(image_BD, 7), whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert head.rank(image_BD[:0], 7).score_BK.shape == (0, 7)
