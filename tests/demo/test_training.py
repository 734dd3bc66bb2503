"""What training is asked; training itself takes an hour."""

from random import Random
from typing import Any

import numpy as np
import torch
from torch.autograd import backward

from zsic.demo.architecture import make_model
from zsic.demo.loss import loss
from zsic.demo.posing import Question, pose, values
from zsic.demo.scene import ATTRIBUTES, HELD_OUT, sample
from zsic.demo.tokenizer import train_tokenizer


def test_right_answers_cost_less_than_guesses_and_guesses_less_than_wrong_ones() -> None:
    rng = Random(0)
    questions = pose(values([sample(rng) for _ in range(96)]), rng, n_claims=32)
    true_BC = torch.from_numpy(np.concatenate([question.true_BC for question in questions], axis=1))
    right, guessed, wrong = (loss(scale * true_BC, questions).item() for scale in (20.0, 0.0, -20.0))
    assert right < guessed < wrong


def test_a_held_out_pair_is_never_made_the_wrong_answer() -> None:
    rng = Random(1)
    scenes = [sample(rng) for _ in range(64)]
    shape_question = pose(values(scenes), rng, n_claims=32)[0]
    for scene, choice_C in zip(scenes, shape_question.choice_BC, strict=True):
        assert [shape for shape, choice in zip(ATTRIBUTES["shape"], choice_C, strict=True) if not choice] == [
            shape for shape in ATTRIBUTES["shape"] if (shape, scene.colour) in HELD_OUT
        ]
    logits_BC = torch.zeros(shape_question.true_BC.shape, requires_grad=True)
    backward(loss(logits_BC, [shape_question]))
    assert logits_BC.grad is not None
    assert (logits_BC.grad[torch.from_numpy(~shape_question.choice_BC)] == 0).all()
    assert logits_BC.grad.isfinite().all()


def test_a_picture_without_a_true_caption_is_not_asked() -> None:
    question = Question(["a", "b"], np.array([[True, False], [False, False]]), np.ones((2, 2), dtype=bool), weight=1.0)
    logits_BC = torch.zeros(2, 2, requires_grad=True)
    backward(loss(logits_BC, [question]))
    assert logits_BC.grad is not None
    assert logits_BC.grad[1, 1] == 0


def test_the_end_of_a_text_is_found_by_its_id() -> None:
    tokenizer = train_tokenizer(["a red circle", "two squares"] * 50)
    config: Any = make_model(tokenizer).config.text_config
    assert config.eos_token_id == tokenizer.eos_token_id == len(tokenizer) - 1
    assert config.eos_token_id != 2  # transformers pools by the highest id then, for old checkpoints
    assert tokenizer("RED circle")["input_ids"] == tokenizer("red  circle")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("zażółć 😀 qx")["input_ids"][1:-1]
