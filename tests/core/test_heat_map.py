import numpy as np
import pytest
from PIL import Image

from zsic.core.heat_map import MAX_SIDE, draw_heat_map

GREY = Image.new("RGB", (400, 400), (128, 128, 128))


def colourful(pixels_hw3: np.ndarray) -> np.ndarray:
    return np.ptp(pixels_hw3.astype(int), axis=-1)


def test_colour_is_where_the_heat_is_and_what_is_cold_stays_as_it_was() -> None:
    heat_HW = np.zeros((8, 8), np.float32)
    heat_HW[1, 6] = 1
    shown = np.asarray(draw_heat_map(GREY, heat_HW, (0, 0, 400, 400), "cat"))[:400]
    row, column = np.unravel_index(colourful(shown).argmax(), (400, 400))
    assert (row // 50, column // 50) == (1, 6)
    assert np.abs(shown[250:, :250].astype(int) - 128).max() <= 2


def test_what_the_model_did_not_see_is_dark() -> None:
    shown = np.asarray(draw_heat_map(GREY, np.ones((4, 4), np.float32), (100, 0, 300, 400), "cat"))[:400]
    assert shown[:, :99].max() < 60
    assert shown[:, 301:].max() < 60
    assert shown[:, 110:290].min(axis=(0, 1)).max() > 100


@pytest.mark.parametrize("size", [(1, 1), (30, 20), (3000, 10), (10, 3000), (4000, 3000)])
@pytest.mark.parametrize("title", ["", "cat", "a very long label " * 50, "Katze 猫 \U0001f431"])
def test_any_picture_gets_a_legend(size: tuple[int, int], title: str) -> None:
    picture = Image.new("RGB", size, "white")
    drawn = draw_heat_map(picture, np.eye(4, dtype=np.float32), (-5, 0, size[0] + 5, size[1]), title)
    assert 300 <= drawn.width <= MAX_SIDE
    legend = np.asarray(drawn)[-20:]
    assert legend.max() == 255


def test_the_legend_tells_the_label() -> None:
    blank, told = (
        np.asarray(draw_heat_map(GREY, np.ones((2, 2), np.float32), (0, 0, 400, 400), title)) for title in ("", "cat")
    )
    assert np.array_equal(blank[:400], told[:400])
    assert not np.array_equal(blank[400:], told[400:])
