from dataclasses import replace
from random import Random

import numpy as np
import pytest

from zsic.demo.drawing import draw
from zsic.demo.outlines import OUTLINES
from zsic.demo.scene import ATTRIBUTES, SHAPES, Scene, sample

PLAIN = Scene("square", "red", "plain", "one", "large", "snow")


def test_the_same_seed_draws_the_same_pixels() -> None:
    scene = sample(Random(3))
    first, again, other = (draw(scene, Random(seed), (120, 90)) for seed in (5, 5, 6))
    assert first.size == (120, 90)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("changed", [{name: value} for name, values in ATTRIBUTES.items() for value in values], ids=str)
def test_every_value_can_be_drawn(changed: dict[str, str]) -> None:
    assert draw(replace(PLAIN, **changed), Random(0), (64, 80)).mode == "RGB"


def test_every_shape_has_an_outline_within_the_unit_circle() -> None:
    assert tuple(OUTLINES) == SHAPES
    for outline_P2 in OUTLINES.values():
        assert np.hypot(*outline_P2.T).max() < 1.2


def test_the_object_has_its_colour_and_lies_in_the_central_square() -> None:
    pixels_HW3 = np.asarray(draw(PLAIN, Random(1), (240, 120)), dtype=np.int16)
    red_HW = (pixels_HW3[..., 0] > 120) & (pixels_HW3[..., 1] < 90)
    assert red_HW[:, 60:180].mean() > 0.2
    assert red_HW[:, :50].sum() == red_HW[:, 190:].sum() == 0


def test_more_objects_cover_more() -> None:
    def red_share(count: str) -> float:
        scene = replace(PLAIN, size="small", count=count)
        shares = []
        for seed in range(5):
            pixels_HW3 = np.asarray(draw(scene, Random(seed), (120, 120)), dtype=np.int16)
            shares.append(((pixels_HW3[..., 0] > 120) & (pixels_HW3[..., 1] < 90)).mean())
        return float(np.mean(shares))

    assert red_share("four") > 3 * red_share("one")
