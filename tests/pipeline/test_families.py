"""The job's answers are those of transformers' zero-shot pipeline, for every family."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from PIL import Image
from support.checkpoints import FAMILIES
from support.runs import read_table

from zsic.core.spec import DecodeSpec, JobSpec
from zsic.models.classifier import Classifier
from zsic.pipeline.run import run

LABELS = ["cat", "a very big Red circle and a small GREEN triangle", "blue", "house"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_job_answers_as_the_pipeline_does(
    family: str,
    tiny_checkpoints: dict[str, Path],
    pictures: dict[str, bytes],
    spec_for: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    model = str(tiny_checkpoints[family])
    run(spec_for(str(folder), model=model, labels=LABELS, decode={"mode": "pil"}))
    rows = {Path(row["uri"]).name: row for row in read_table(tmp_path / "out").to_pylist()}
    assert set(rows) == set(pictures)

    images = [Image.open(io.BytesIO(data)) for data in pictures.values()]
    if family == "tipsv2":
        # Its image processor needs torchvision; tests/models compares `predict` with the pipeline and a stand-in.
        expected = Classifier(model, LABELS, decode=DecodeSpec(mode="pil")).predict(list(pictures.values()))
    else:
        pipeline = transformers.pipeline("zero-shot-image-classification", model=model, device="cpu")
        expected = pipeline(images, candidate_labels=LABELS)
    for name, answers in zip(pictures, expected, strict=True):
        got = rows[name]["predictions"]
        assert [each["label"] for each in got] == [each["label"] for each in answers]
        assert [each["score"] for each in got] == pytest.approx([each["score"] for each in answers], abs=1e-5)
