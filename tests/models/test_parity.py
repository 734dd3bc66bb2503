"""Scores are those of transformers' zero-shot pipeline, for every family."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.image_processing_backends import PilBackend

from zsic import Classifier
from zsic.core.spec import DecodeSpec

_log = logging.getLogger(__name__)

FAMILIES = ("align", "altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip", "tipsv2")
LABELS = ["cat", "a very big Red circle and a small GREEN triangle", "blue", "house", "photo of a cat and a house"]


class _Tipsv2Pil(PilBackend):
    """The settings of `Tipsv2ImageProcessor`, which has no form without torchvision."""

    resample = transformers.image_utils.PILImageResampling.BILINEAR
    size = {"height": 32, "width": 32}
    do_resize = do_rescale = do_convert_rgb = True
    do_normalize = False


def _pipeline(family: str, folder: Path) -> Any:
    options = {"image_processor": _Tipsv2Pil()} if family == "tipsv2" else {}
    return transformers.pipeline("zero-shot-image-classification", model=str(folder), device="cpu", **options)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """One family after the other, so that the pipeline of each is loaded once."""
    return str(request.param)


@pytest.fixture(scope="module")
def expected(family: str, tiny_checkpoints: dict[str, Path], pictures: dict[str, bytes]) -> list[list[dict[str, Any]]]:
    """Answers of transformers' pipeline, by picture."""
    images = [Image.open(io.BytesIO(data)) for data in pictures.values()]
    answers: list[list[dict[str, Any]]] = _pipeline(family, tiny_checkpoints[family])(images, candidate_labels=LABELS)
    return answers


def _by_label(answers: list[dict[str, Any]]) -> np.ndarray:
    scores = {answer["label"]: answer["score"] for answer in answers}
    return np.array([scores[label] for label in LABELS])


def test_scores_equal_the_pipelines(
    family: str,
    tiny_checkpoints: dict[str, Path],
    pictures: dict[str, bytes],
    expected: list[list[dict[str, Any]]],
) -> None:
    classifier = Classifier(str(tiny_checkpoints[family]), LABELS, decode=DecodeSpec(mode="pil"))
    got = classifier.predict(list(pictures.values()))
    ours = np.array([_by_label(answers) for answers in got])
    theirs = np.array([_by_label(answers) for answers in expected])
    _log.info("%s, pil: worst difference %.1e", family, abs(ours - theirs).max())
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    # The comparison means something only where labels, and images, get different scores.
    assert np.ptp(theirs, axis=1).max() > 0.1
    assert np.ptp(theirs, axis=0).max() > 0.01
    for mine, pipelines in zip(got, expected, strict=True):
        assert [answer["label"] for answer in mine] == [answer["label"] for answer in pipelines]


def test_fast_path_gives_the_same_answer(
    family: str,
    tiny_checkpoints: dict[str, Path],
    pictures: dict[str, bytes],
    expected: list[list[dict[str, Any]]],
) -> None:
    classifier = Classifier(str(tiny_checkpoints[family]), LABELS, decode=DecodeSpec(mode="exact"))
    worst = 0.0
    for data, theirs in zip(pictures.values(), expected, strict=True):
        ours = classifier.predict(data)
        worst = max(worst, abs(_by_label(ours) - _by_label(theirs)).max())
        if theirs[0]["score"] - theirs[1]["score"] > 1e-3:
            assert ours[0]["label"] == theirs[0]["label"]
    _log.info("%s, exact: worst difference %.1e", family, worst)
    assert worst < 0.005
