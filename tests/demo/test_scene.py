import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from zsic.demo.scene import ATTRIBUTES, COLOURS, HELD_OUT, SHAPES, TRAINING_PAIRS, sample


def test_held_out_pairs_are_a_sixth_and_leave_every_shape_and_colour_in_training() -> None:
    assert len(HELD_OUT) == 24
    assert len(TRAINING_PAIRS) + len(HELD_OUT) == len(SHAPES) * len(COLOURS)
    assert Counter(shape for shape, _ in HELD_OUT) == dict.fromkeys(SHAPES, 2)
    assert Counter(colour for _, colour in HELD_OUT) == dict.fromkeys(COLOURS, 2)


@pytest.mark.parametrize("held_out", [False, True])
def test_sampling_keeps_to_its_side_of_the_split(held_out: bool) -> None:
    rng = Random(0)
    scenes = [sample(rng, held_out=held_out) for _ in range(5000)]
    assert {scene.held_out for scene in scenes} == {held_out}
    for name, values in ATTRIBUTES.items():
        assert {scene.attributes()[name] for scene in scenes} == set(values)


def test_importing_the_demo_and_its_data_needs_no_torch() -> None:
    script = "import sys, zsic.demo, zsic.demo.shards; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
