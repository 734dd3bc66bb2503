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
from zsic.models.checkpoint import resolve
from zsic.models.encoder import TextEncoder
from zsic.models.head import Head, adjust, compile_head


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
def test_grouping_does_not_matter(at_once: int) -> None:
    label_set = _labels("cat", "dog", "bird", "house", "tree")
    whole = compile_head(label_set, HashTower())
    assert torch.equal(compile_head(label_set, HashTower(), prompts_at_once=at_once).matrix_CD, whole.matrix_CD)


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


def test_many_labels_are_ranked_in_parts() -> None:
    head = compile_head(_labels(*(f"label {n}" for n in range(50))), HashTower())
    image_BD = torch.nn.functional.normalize(torch.randn(13, 32, generator=torch.Generator().manual_seed(0)))
    whole = head.rank(image_BD, 7)
    for ours, theirs in zip(head.judge(image_BD, 7, scores_at_once=200).top, whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert head.rank(image_BD[:0], 7).score_BK.shape == (0, 7)


def _unit_rows(n: int, dim: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def _from_file(tmp_path: Path, text: str) -> LabelSet:
    (tmp_path / "labels.yaml").write_text(text)
    return load_labels(LabelsSpec(path=str(tmp_path / "labels.yaml")))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_shares_are_added_to_the_logits(link: Link, tmp_path: Path) -> None:
    plain = compile_head(_labels("cat", "dog", "bird"), HashTower(link=link, bias=-1.0))
    head = adjust(plain, (0.7, 0.2, 0.1), "stated")
    image_BD = _unit_rows(9)
    # By Bayes: the odds of two labels change as their shares do.
    logit_BC = 10.0 * image_BD.double() @ plain.matrix_CD.double().T - 1.0
    shifted_BC = logit_BC + torch.tensor([0.7, 0.2, 0.1]).double().log() - torch.tensor(1 / 3).double().log()
    expected_BC = shifted_BC.softmax(dim=1) if link == "softmax" else shifted_BC.sigmoid()
    top = head.rank(image_BD, 3)
    order_BC = expected_BC.argsort(dim=1, descending=True)
    assert torch.equal(top.label_index_BK.long(), order_BC)
    torch.testing.assert_close(top.score_BK.double(), expected_BC.gather(1, order_BC), atol=1e-5, rtol=0)
    similarity_BC = image_BD @ plain.matrix_CD.T
    torch.testing.assert_close(top.similarity_BK, similarity_BC.gather(1, order_BC))
    torch.testing.assert_close(head.logits(image_BD).double(), shifted_BC, atol=1e-5, rtol=0)


def test_labels_with_long_shares_ask_what_their_head_asks(tmp_path: Path) -> None:
    text = "labels: {cat: {prior: 0.3333333}, dog: {prior: 0.3333333}, bird: {prior: 0.3333334}}\n"
    label_set = _from_file(tmp_path, text)
    assert compile_head(label_set, HashTower()).question == label_set.digest


def test_equal_shares_change_nothing() -> None:
    plain = compile_head(_labels("cat", "dog"), HashTower())
    image_BD = _unit_rows(5)
    for ours, theirs in zip(
        adjust(plain, (0.5, 0.5), "stated").rank(image_BD, 2), plain.rank(image_BD, 2), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


MULTI = """\
mode: multi
templates: none
negative: no {}
labels:
- {name: cat, threshold: 0.3}
- dog
- bird
"""


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_several_labels_stand_each_for_itself(link: Link, tmp_path: Path) -> None:
    tower = HashTower(link=link, bias=-0.5)
    head = compile_head(_from_file(tmp_path, MULTI), tower)
    image_BD = _unit_rows(40, seed=3)
    positive_CD, negative_CD = tower.encode(["cat", "dog", "bird"]), tower.encode(["no cat", "no dog", "no bird"])
    image = image_BD.numpy()
    similarity_BC = image @ positive_CD.T - (image @ negative_CD.T if link == "softmax" else 0)
    logit_BC = 10.0 * similarity_BC - 0.5
    score_BC = 1 / (1 + np.exp(-logit_BC))
    verdict = head.judge(image_BD, 3)
    assert verdict.fits is not None
    fits_BC = score_BC >= np.array([0.3, 0.5, 0.5])
    assert 0 < fits_BC.sum() < fits_BC.size
    found = set(zip(verdict.fits.image_P.tolist(), verdict.fits.label_P.tolist(), strict=True))
    assert found == set(zip(*(each.tolist() for each in np.nonzero(fits_BC)), strict=True))
    np.testing.assert_allclose(verdict.top.score_BK, -np.sort(-score_BC, axis=1), atol=1e-5)
    assert (head.negative_ND is not None) == (link == "softmax")


def test_a_softmax_model_contrasts_each_label_with_its_negative(tmp_path: Path) -> None:
    tower = HashTower()
    head = compile_head(_from_file(tmp_path, MULTI), tower)
    image_BD = _unit_rows(6)
    pair_BC2 = torch.stack(
        [image_BD @ torch.from_numpy(tower.encode([f"{no}{name}" for name in head.labels])).T for no in ("", "no ")], -1
    )
    expected_BC = (10.0 * pair_BC2).softmax(dim=-1)[..., 0]
    top = head.rank(image_BD, 3)
    torch.testing.assert_close(top.score_BK, expected_BC.sort(descending=True).values)


RIVALS = """\
mode: multi
templates: none
negative: nothing
labels:
- {name: cat, negative: [a dog, a bird]}
- {name: dog, negative: [a bird, a cat, a cow]}
- bird
- fish
"""


@pytest.mark.parametrize("scale", [10.0, 100.0, 300.0])
def test_a_label_competes_with_each_of_its_negatives(scale: float, tmp_path: Path) -> None:
    tower = HashTower(scale=scale)
    head = compile_head(_from_file(tmp_path, RIVALS), tower)
    image_BD = _unit_rows(50)
    rivals = [("cat", "a dog", "a bird"), ("dog", "a bird", "a cat", "a cow"), ("bird", "nothing"), ("fish", "nothing")]
    logits = [scale * (image_BD @ torch.from_numpy(tower.encode(each)).T).double() for each in rivals]
    expected_BC = torch.stack([each.softmax(dim=1)[:, 0] for each in logits], dim=1)
    logit_BC = head.logits(image_BD)
    torch.testing.assert_close(logit_BC.sigmoid().double(), expected_BC, atol=1e-4, rtol=0)
    assert logit_BC.isfinite().all()
    assert head.negative_ND is not None
    assert head.negative_ND.shape[0] == 5
    # A calibration changes how sure it is, and not how negatives add up.
    once = replace(head, scale=head.scale * 0.5, bias=0.25)
    torch.testing.assert_close(once.logits(image_BD), 0.5 * logit_BC + 0.25, atol=1e-3, rtol=1e-4)
    assert replace(head, sharpness=1e5).logits(image_BD).isfinite().all()


def test_one_negative_said_twice_counts_once_and_for_all_labels_the_same(tmp_path: Path) -> None:
    text = "mode: multi\ntemplates: none\nnegative: [nothing, nothing]\nlabels: [cat, dog]\n"
    head = compile_head(_from_file(tmp_path, text), HashTower())
    assert head.negative_ND is not None
    assert head.negative_ND.shape[0] == 1
    assert head.rivals.set_NG.tolist() == [[1.0]]


def test_rules_are_applied_in_parts_as_on_the_whole(tmp_path: Path) -> None:
    tree = "back_off: 0.4\nreject: {min_margin: 0.05}\nlabels:\n- {name: pet, children: [cat, dog]}\n- bird\n"
    for text in (MULTI, RIVALS, tree):
        head = compile_head(_from_file(tmp_path, text), HashTower())
        image_BD = _unit_rows(21)
        whole = head.judge(image_BD, 1)
        assert whole.top.score_BK.shape == (21, 1)
        parts = head.judge(image_BD, 1, scores_at_once=9)
        assert torch.equal(parts.answer_B, whole.answer_B)
        assert len(set(whole.answer_B.tolist())) > 2
        for ours, theirs in zip(parts.fits or (), whole.fits or (), strict=True):
            assert torch.equal(ours, theirs)


def test_everything_is_saved(tmp_path: Path) -> None:
    tree = "back_off: 0.4\nreject: {background: [wall], min_margin: 0.05}\nlabels:\n- {name: pet, children: [cat]}\n"
    heads = [
        compile_head(_from_file(tmp_path, MULTI), HashTower()),
        compile_head(_from_file(tmp_path, RIVALS), HashTower()),
        compile_head(_from_file(tmp_path, tree), HashTower()),
        adjust(compile_head(_labels("cat", "dog"), HashTower()), (0.25, 0.75), "stated"),
    ]
    assert len({head.digest for head in heads}) == 4
    for head in heads:
        head.save(tmp_path / "head.safetensors")
        loaded = Head.load(tmp_path / "head.safetensors")
        assert loaded.digest == head.digest
        assert loaded.rules == head.rules
        assert loaded.answers == head.answers
        image_BD = _unit_rows(11)
        ours, theirs = loaded.judge(image_BD, 2), head.judge(image_BD, 2)
        assert torch.equal(ours.answer_B, theirs.answer_B)
        assert torch.equal(ours.top.score_BK, theirs.top.score_BK)


def test_what_was_done_to_a_head_changes_its_digest() -> None:
    plain = compile_head(_labels("cat", "dog"), HashTower())
    digests = {adjust(plain, shares, "stated").digest for shares in ((0.5, 0.5), (0.25, 0.75))}
    assert len(digests | {plain.digest}) == 3
