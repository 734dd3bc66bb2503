from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel, CLIPProcessor, pipeline

from zsic.demo import MODEL_PATH
from zsic.demo.album import IMAGE_SIDE_PX, shrink
from zsic.demo.label_sets import labels, true_label
from zsic.demo.measure import TEMPLATES, Checkpoint, accuracy, pictures

# Top-1 on held-out pairs; a little under what zsic/demo/README.md reports.
FLOORS = {"shape": 0.92, "colour": 0.97}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.load(MODEL_PATH)


def test_the_folder_is_small_enough_to_ship() -> None:
    files = {path: path.stat().st_size for path in MODEL_PATH.iterdir()}
    assert sum(files.values()) <= 10_000_000
    assert all(n_bytes <= 1_000_000 for path, n_bytes in files.items() if path.suffix != ".safetensors")
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_weights_are_complete_and_load_as_float32() -> None:
    load: Any = CLIPModel.from_pretrained
    model, loading = load(MODEL_PATH, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32


@pytest.mark.parametrize("n_pictures", [100, pytest.param(300, marks=pytest.mark.variant)])
def test_held_out_pairs_are_recognised(checkpoint: Checkpoint, n_pictures: int) -> None:
    scenes, images = zip(*pictures(n_pictures, seed=11), strict=True)
    assert all(scene.held_out for scene in scenes)
    image_BD = checkpoint.embed_images(images)
    for task, floor in FLOORS.items():
        for template in TEMPLATES:
            share = accuracy(checkpoint, image_BD, scenes, task, template)
            assert share >= floor, f"{task}, {template}"


def test_the_pipeline_gives_the_scores_of_the_model(checkpoint: Checkpoint) -> None:
    (scene, picture), choices = next(pictures(1, seed=2)), labels()
    classify = pipeline("zero-shot-image-classification", model=str(MODEL_PATH))
    answers = classify(picture, candidate_labels=choices)
    logits_1C = (
        checkpoint.embed_images([picture])
        @ checkpoint.embed_texts([f"This is a photo of {choice}." for choice in choices]).T
    )
    expected = (checkpoint.model.logit_scale.exp() * logits_1C).softmax(dim=-1)[0]
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert true_label(scene) in scores
    torch.testing.assert_close(torch.tensor([scores[choice] for choice in choices]), expected, atol=1e-5, rtol=1e-4)


def test_training_pictures_are_shrunk_as_the_processor_does(checkpoint: Checkpoint) -> None:
    for _, picture in pictures(5, seed=3):
        processed = checkpoint.processor(picture, do_normalize=False, return_tensors="pt")["pixel_values"][0]
        shrunk = torch.frombuffer(bytearray(shrink(picture).tobytes()), dtype=torch.uint8)
        shrunk_3HW = shrunk.reshape(IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3).permute(2, 0, 1)
        assert torch.equal((processed * 255).round().to(torch.uint8), shrunk_3HW)


def test_texts_are_pooled_at_their_end_whatever_the_padding(checkpoint: Checkpoint) -> None:
    alone = checkpoint.embed_texts(["red circle"])
    padded = checkpoint.embed_texts(["red circle", "a much longer text about four striped hexagons"])
    torch.testing.assert_close(alone[0], padded[0])
    assert not torch.allclose(padded[0], padded[1], atol=0.1)


@pytest.mark.parametrize("text", ["", "RED  Circle", "naïve café 😀", "Żółty trójkąt", "zyzzyva qwertz 123"])
def test_any_text_can_be_embedded(checkpoint: Checkpoint, text: str) -> None:
    assert checkpoint.embed_texts([text]).isfinite().all()
    assert torch.equal(checkpoint.embed_texts([text.lower()]), checkpoint.embed_texts([text]))


def test_a_processor_loads_too(checkpoint: Checkpoint) -> None:
    processor = CLIPProcessor.from_pretrained(MODEL_PATH)
    assert (
        processor(text=["a"], return_tensors="pt")["input_ids"].tolist()
        == checkpoint.tokenizer(["a"], return_tensors="pt")["input_ids"].tolist()
    )


def test_the_bundled_folder_is_inside_the_package() -> None:
    import zsic

    assert Path(zsic.__file__).parent in MODEL_PATH.parents
