import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import images
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from zsic.core import preprocess
from zsic.core.decode import DecodeError, inspect
from zsic.core.errors import ModelError
from zsic.core.outcome import Outcome
from zsic.core.preprocess import Geometry, Prepared, fit, prepare
from zsic.core.spec import DecodeSpec

PIL, EXACT, FAST = DecodeSpec(mode="pil"), DecodeSpec(mode="exact"), DecodeSpec(mode="fast")
CLIP = Geometry(224, "bicubic", (224, 224))
SIGLIP = Geometry((384, 384), "bicubic", None)
VIT = Geometry((224, 224), "bilinear", None)
PADDED = Geometry(50, "bicubic", (81, 64))

SIZES = st.one_of(
    st.tuples(st.integers(1, 500), st.integers(1, 500)),
    st.tuples(st.integers(1, 30), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 30)),
)


def processed(processor: Any, image: Image.Image) -> np.ndarray:
    """The pixels of a transformers processor before it rescales them."""
    batch = processor(image, do_rescale=False, do_normalize=False)
    return np.moveaxis(np.asarray(batch["pixel_values"][0]), 0, -1)


def shortest(resize: int, height: int, width: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": resize}, "crop_size": {"height": height, "width": width}}


def exact(height: int, width: int) -> dict[str, Any]:
    return {"size": {"height": height, "width": width}}


FILTERS: list[tuple[Any, int]] = [("nearest", 0), ("lanczos", 1), ("box", 4), ("hamming", 5)]
EFFICIENT: dict[str, Any] = {"include_top": False, "do_center_crop": True, "crop_size": {"height": 55, "width": 55}}
PROCESSORS: dict[str, tuple[Any, Geometry]] = {
    "clip": (CLIPImageProcessorPil(), CLIP),
    "clip, odd": (CLIPImageProcessorPil(**shortest(61, 40, 31)), Geometry(61, "bicubic", (40, 31))),
    "clip, padded": (CLIPImageProcessorPil(**shortest(50, 81, 64)), PADDED),
    "clip, crop alone": (
        CLIPImageProcessorPil(do_resize=False, **shortest(1, 60, 45)),
        Geometry(None, "bicubic", (60, 45)),
    ),
    "siglip": (SiglipImageProcessorPil(), Geometry((224, 224), "bicubic", None)),
    "siglip, oblong": (SiglipImageProcessorPil(**exact(70, 33)), Geometry((70, 33), "bicubic", None)),
    "vit": (ViTImageProcessorPil(), VIT),
    "efficientnet": (
        EfficientNetImageProcessorPil(**EFFICIENT, **exact(66, 66)),
        Geometry((66, 66), "bicubic", (55, 55)),
    ),
} | {
    f"vit, {name}": (ViTImageProcessorPil(resample=number, **exact(60, 60)), Geometry((60, 60), name, None))
    for name, number in FILTERS
}


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=settings.default.max_examples // 4)  # of each of twelve
@given(size=SIZES)
def test_fit_is_transformers_to_the_bit(name: str, size: tuple[int, int]) -> None:
    processor, geometry = PROCESSORS[name]
    image = images.noise(*size)
    fitted = fit(image, geometry)
    assert fitted.dtype == np.uint8
    assert fitted.shape == (*geometry.size, 3)
    assert np.array_equal(fitted, processed(processor, image))


@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
def test_files_come_out_as_transformers_takes_them(name: str) -> None:
    processor, geometry = PROCESSORS[name]
    for turn in (1, 6):
        data = images.oriented(turn, images.picture(300, 200))
        expected = processed(processor, load_image(Image.open(io.BytesIO(data))))
        assert np.array_equal(prepare(data, geometry, PIL).pixels_HW3, expected)


def differences(data: bytes, geometry: Geometry) -> np.ndarray:
    """Between the two modes, in grey levels."""
    slow, fast = prepare(data, geometry, PIL), prepare(data, geometry, EXACT)
    assert slow[1:] == fast[1:]
    assert fast.pixels_HW3.shape == slow.pixels_HW3.shape == (*geometry.size, 3)
    return np.abs(slow.pixels_HW3.astype(int) - fast.pixels_HW3)


@given(
    SIZES,
    st.sampled_from(["JPEG", "PNG"]),
    st.integers(1, 8),
    st.sampled_from([CLIP, SIGLIP, VIT, PADDED, Geometry((70, 33), "bilinear", (50, 41))]),
)
def test_exact_is_pil_up_to_rounding(size: tuple[int, int], format: str, turn: int, geometry: Geometry) -> None:
    difference = differences(images.oriented(turn, images.noise(*size), format), geometry)
    assert difference.max() <= 3
    assert difference.mean() < 0.1


def scenery(height: int, width: int) -> Image.Image:
    """Smooth, and different at every place, so that a shift shows."""
    y, x = np.mgrid[:height, :width] / max(height, width) * 9
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)
    return Image.fromarray((127.5 + 110 * waves).astype(np.uint8))


@given(
    st.integers(257, 600),
    st.integers(257, 600),
    st.integers(1, 8),
    st.sampled_from([Geometry(64, "bicubic", (64, 64)), Geometry((64, 48), "bilinear", None)]),
)
def test_fast_is_exact_where_nothing_is_fine(height: int, width: int, turn: int, geometry: Geometry) -> None:
    """Half a pixel of the picture, which libjpeg adds when it rounds sizes up, would already be too much."""
    data = images.oriented(turn, scenery(height, width))
    fast, exact = prepare(data, geometry, FAST), prepare(data, geometry, EXACT)
    assert fast[1:] == exact[1:]
    difference = np.abs(fast.pixels_HW3.astype(int) - exact.pixels_HW3)
    assert difference.mean() < 0.4
    assert difference.max() <= 4


@pytest.mark.parametrize("side", [100, 250])
def test_fast_leaves_small_pictures_alone(side: int) -> None:
    data = images.oriented(1, images.noise(side, side))
    geometry = Geometry(64, "bicubic", (64, 64))
    assert np.array_equal(prepare(data, geometry, FAST).pixels_HW3, prepare(data, geometry, EXACT).pixels_HW3)


def test_fast_takes_large_pictures_at_a_fraction() -> None:
    data = images.oriented(1, images.noise(1603, 1201))
    whole, scaled = (
        preprocess._decode_jpeg(data, inspect(data, spec), Geometry(64, "bicubic", (64, 64)), spec)
        for spec in (EXACT, FAST)
    )
    assert whole is not None
    assert scaled is not None
    assert whole.pixels_hw3.shape == (1201, 1603, 3)
    assert whole.extent == (1201, 1603)
    assert scaled.pixels_hw3.shape == (151, 201, 3)
    assert scaled.extent == (1201 / 8, 1603 / 8)
    assert scaled.size == whole.size == (1603, 1201)


@cache
def photographs(make: Callable[[int, int], Image.Image]) -> list[bytes]:
    """Files of the sizes that photographs have, some of which lie turned."""
    sizes = [(500, 375), (375, 500), (422, 500), (640, 427), (1024, 768), (700, 300), (256, 256), (1600, 1200)]
    return [images.oriented(turn, make(*size)) for size, turn in zip(sizes, (1, 1, 6, 8, 3, 5, 2, 1), strict=True)]


@pytest.mark.parametrize("make", [images.picture, images.noise])
@pytest.mark.parametrize("geometry", [CLIP, SIGLIP, VIT, Geometry(256, "bicubic", (224, 224))])
def test_rounding_stays_below_a_hundredth_of_a_grey_level(make: Any, geometry: Geometry) -> None:
    found = [differences(data, geometry) for data in photographs(make)]
    assert max(difference.max() for difference in found) <= 2
    assert np.mean([difference.mean() for difference in found]) < 0.01


def test_the_two_modes_do_not_run_the_same_code() -> None:
    # Else the comparisons above would prove nothing.
    assert differences(images.encode(images.noise(500, 375), "JPEG"), CLIP).max() > 0


def fate(data: bytes, spec: DecodeSpec) -> tuple[Outcome, tuple[int, int] | None]:
    try:
        prepared = prepare(data, CLIP, spec)
    except DecodeError as error:
        width, height = error.width, error.height
        return error.failure.outcome, None if width is None or height is None else (width, height)
    return Outcome.OK, (prepared.width, prepared.height)


@pytest.mark.parametrize("name", images.hostile_images())
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_both_modes_agree_on_every_hostile_file(name: str) -> None:
    case = images.hostile_images()[name]
    assert fate(case.data, PIL) == fate(case.data, EXACT) == (case.outcome, case.size)


def test_pillow_decides_where_simplejpeg_refuses() -> None:
    data = images.encode(images.picture(200, 150), "JPEG")
    end = len(data) - 2
    # Stray bytes before the end: libjpeg warns, Pillow shrugs, simplejpeg is strict.
    tolerated = data[:end] + bytes(40) + data[end:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(tolerated)
    assert differences(tolerated, CLIP).max() <= 2


def test_pixels_go_where_they_are_told() -> None:
    out_HW3 = np.full((224, 224, 3), 7, np.uint8)
    for spec in (PIL, EXACT):
        data = images.encode(images.picture(300, 200), "JPEG")
        prepared = prepare(data, CLIP, spec, out_HW3)
        assert prepared.pixels_HW3 is out_HW3
        assert np.array_equal(out_HW3, prepare(data, CLIP, spec).pixels_HW3)


def test_a_failure_leaves_the_place_as_it_was() -> None:
    out_HW3 = np.full((224, 224, 3), 7, np.uint8)
    for spec in (PIL, EXACT):
        for data in (b"", images.encode(images.picture(300, 200), "JPEG")[:-500]):
            with pytest.raises(DecodeError):
                prepare(data, CLIP, spec, out_HW3)
    assert (out_HW3 == 7).all()


def test_results_own_their_memory() -> None:
    # A slice would keep the resized picture alive, and be copied by whoever sends it.
    for geometry in (CLIP, SIGLIP):
        pixels_HW3 = prepare(images.encode(images.picture(300, 200), "JPEG"), geometry, EXACT).pixels_HW3
        assert pixels_HW3.flags.c_contiguous
        assert pixels_HW3.flags.writeable


def test_many_threads_see_what_one_sees() -> None:
    files = [images.encode(images.picture(200 + 9 * n, 300 - 7 * n, n), "JPEG") for n in range(16)]
    alone = [prepare(data, CLIP, EXACT) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: prepare(data, CLIP, EXACT), files * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert np.array_equal(one.pixels_HW3, other.pixels_HW3)


@pytest.mark.parametrize("size", [(3, 700), (700, 3), (2, 901), (901, 1), (160, 120)])
@pytest.mark.parametrize("geometry", [CLIP, PADDED, Geometry(300, "lanczos", (224, 224))])
def test_the_crop_alone_is_the_crop_of_the_whole(size: tuple[int, int], geometry: Geometry) -> None:
    image = images.noise(*size)
    whole = fit(image, geometry).astype(int)
    difference = np.abs(fit(image, geometry, max_resized_pixels=0) - whole)
    assert difference.max() <= 3
    assert difference.mean() < 0.01


def test_large_pictures_are_resized_without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images.encode(images.noise(300, 200), "PNG")
    monkeypatch.setattr(preprocess, "_MAX_COPIED_PIXELS", 300 * 200 - 1)
    assert differences(data, CLIP).max() == 0


@given(st.integers(1, 600), st.integers(1, 5000), st.integers(1, 5000))
def test_the_shortest_edge_is_what_was_asked_for(resize: int, height: int, width: int) -> None:
    new_height, new_width = Geometry(resize, "bicubic", (1, 1)).resized(height, width)
    assert min(new_height, new_width) == resize
    # Truncated, never rounded up.
    assert max(new_height, new_width) <= resize * max(height, width) / min(height, width)


@pytest.mark.parametrize("geometry", [CLIP, SIGLIP, VIT, Geometry(None, "box", (3, 4))])
def test_a_geometry_survives_json(geometry: Geometry) -> None:
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


def test_size_is_height_then_width() -> None:
    assert Geometry(50, "bicubic", (81, 64)).size == (81, 64)
    assert Geometry((70, 33), "bicubic", None).size == (70, 33)


@pytest.mark.parametrize(
    ("resize", "resample", "crop", "message"),
    [
        (224, "bicubic", None, "geometry.resize is 224 without a crop"),
        (None, "bicubic", None, "geometry.resize is None without a crop"),
        (0, "bicubic", (1, 1), "geometry.resize must be positive"),
        ((224, -1), "bicubic", None, "geometry.resize must be positive"),
        (224, "bicubic", (224,), "geometry.crop must be positive"),
        (224, "cubic", (224, 224), "geometry.resample must be one of nearest, .*; got 'cubic'"),
    ],
)
def test_a_geometry_without_one_size_is_refused(resize: Any, resample: Any, crop: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Geometry(resize, resample, crop)


def test_prepared_is_what_the_pipeline_unpacks() -> None:
    prepared = prepare(images.encode(images.picture(30, 20), "PNG"), PADDED, EXACT)
    assert isinstance(prepared, Prepared)
    assert (prepared.width, prepared.height) == (30, 20)
