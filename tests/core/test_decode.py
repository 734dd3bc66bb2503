import io
import pickle
import struct
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from support import images

from zsic.core.decode import DecodeError, decode
from zsic.core.outcome import Failure, Outcome
from zsic.core.preprocess import Geometry, prepare
from zsic.core.spec import DecodeSpec

# Pillow warns of much that is odd in metadata.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SPEC = DecodeSpec()
CASES = images.hostile_images()
FINE = [name for name, case in CASES.items() if case.outcome is Outcome.OK]


def fate(data: bytes, spec: DecodeSpec = SPEC) -> tuple[Outcome, tuple[int, int] | None, str]:
    """What becomes of a file: outcome, size as far as known, detail."""
    try:
        image = decode(data, spec)
    except DecodeError as error:
        width, height = error.width, error.height
        size = None if width is None or height is None else (width, height)
        return error.failure.outcome, size, error.failure.detail
    assert image.mode == "RGB"
    assert len(image.tobytes()) == 3 * image.width * image.height
    return Outcome.OK, image.size, ""


def as_transformers_loads(data: bytes) -> Image.Image:
    """The lines of transformers' `load_image` that touch the pixels."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", CASES)
def test_each_file_meets_its_outcome(name: str) -> None:
    case = CASES[name]
    outcome, size, detail = fate(case.data)
    assert (outcome, size) == (case.outcome, case.size)
    assert (detail == "") == (outcome is Outcome.OK)


def test_the_same_file_always_fails_in_the_same_words() -> None:
    # Pillow's own words hold addresses of objects, which differ from call to call.
    kept = [io.BytesIO(bytes(1000)) for _ in range(100)]
    for name, case in CASES.items():
        first, second = fate(case.data), fate(bytes(bytearray(case.data)))
        assert first == second, name
        assert "0x" not in first[2], name
    assert kept


@pytest.mark.parametrize("name", [name for name in FINE if "16 bits" not in name and "12 bits" not in name])
def test_pixels_are_those_that_transformers_loads(name: str) -> None:
    data = CASES[name].data
    assert np.array_equal(pixels(decode(data, SPEC)), pixels(as_transformers_loads(data)))


def test_every_value_of_16_bits_is_scaled_and_rounded() -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(grey / 257).astype(int)
    little, big = images.encode(Image.fromarray(grey), "TIFF"), io.BytesIO()
    Image.frombytes("I;16B", (256, 256), grey.astype(">u2").tobytes()).save(big, "TIFF")
    for data in (images.encode(Image.fromarray(grey), "PNG"), little, big.getvalue()):
        decoded = pixels(decode(data, SPEC))
        assert all(np.array_equal(decoded[:, :, band], expected) for band in range(3))


def test_12_bits_reach_white() -> None:
    # Two pixels, 0xfff and 0x800.
    assert pixels(decode(CASES["TIFF 12 bits"].data, SPEC))[0, :, 0].tolist() == [255, 128]


def test_alpha_is_dropped_and_not_blended() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    for format in ("PNG", "TIFF"):
        assert decode(images.encode(image, format), SPEC).getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_orientation_sets_the_picture_upright(turn: int, format: str) -> None:
    upright = images.picture(24, 16)
    # How the picture must lie in the file, so that this orientation rights it.
    lying = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[turn]
    difference = np.abs(pixels(decode(images.oriented(turn, lying, format), SPEC)) - pixels(upright))
    # Lying otherwise than upright, it would differ by 40.
    assert difference.mean() < (5 if format == "JPEG" else 1e-9)


def test_orientation_may_be_left_alone() -> None:
    as_it_lies = DecodeSpec(exif_orientation=False)
    data = images.oriented(6, images.picture(24, 16), "PNG")
    assert np.array_equal(pixels(decode(data, as_it_lies)), pixels(images.picture(24, 16)))
    assert decode(data, SPEC).size == (16, 24)


def test_orientation_is_known_where_the_pixels_are_refused() -> None:
    data = images.oriented(6, images.picture(240, 160))
    assert fate(data, DecodeSpec(max_pixels=100))[:2] == (Outcome.TOO_MANY_PIXELS, (160, 240))
    assert fate(data[:-200])[:2] == (Outcome.CORRUPT, (160, 240))


def test_xmp_turns_where_exif_does_not() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    data = images.encode(images.picture(24, 16), "JPEG", xmp=xmp)
    assert decode(data, SPEC).size == as_transformers_loads(data).size == (16, 24)


def test_limits_are_what_is_still_allowed() -> None:
    data = images.encode(images.picture(20, 10), "PNG")
    assert fate(data, DecodeSpec(max_bytes=len(data), max_pixels=200))[0] is Outcome.OK
    too_large = fate(data, DecodeSpec(max_bytes=len(data) - 1))
    assert too_large == (Outcome.TOO_LARGE, None, f"{len(data)} bytes, more than decode.max_bytes, {len(data) - 1}")
    too_many = fate(data, DecodeSpec(max_pixels=199))
    assert too_many == (Outcome.TOO_MANY_PIXELS, (20, 10), "PNG: 20 x 10, more than decode.max_pixels, 199")


def test_large_files_are_not_looked_into() -> None:
    assert fate(b"<html>" * 100, DecodeSpec(max_bytes=10))[0] is Outcome.TOO_LARGE


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_later_frames_are_not_read(format: str) -> None:
    whole = images.animation(format)
    first = decode(whole, SPEC)
    # WebP checks the length it was told, so its damage is within; a GIF may as well end.
    damaged = whole[:-200] if format == "GIF" else whole[:-200] + bytes(200)
    assert np.array_equal(pixels(decode(damaged, SPEC)), pixels(first))


def test_first_page_of_a_tiff_and_first_picture_of_an_mpo() -> None:
    pages = decode(images.animation("TIFF"), SPEC)
    assert np.array_equal(pixels(pages), pixels(images.picture()))
    mpo = decode(images.animation("MPO"), SPEC)
    assert np.abs(pixels(mpo) - pixels(images.picture())).mean() < 3


def test_pillows_switches_are_left_as_they_were() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_many_threads_see_what_one_sees() -> None:
    names = list(CASES) * 4
    with ThreadPoolExecutor(8) as pool:
        fates = list(pool.map(lambda name: fate(CASES[name].data), names))
    alone = {name: fate(case.data) for name, case in CASES.items()}
    assert fates == [alone[name] for name in names]


def test_the_error_travels_between_processes() -> None:
    error = DecodeError(Failure(Outcome.CORRUPT, "PNG: damaged"), 3, 4)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.failure, copy.width, copy.height) == (error.failure, 3, 4)
    assert str(copy) == "corrupt: PNG: damaged"


def test_torch_is_loaded_for_nothing_but_the_fast_resize() -> None:
    program = "import sys, zsic.core.decode, zsic.core.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("name", [name for name in CASES if "bomb" in name])
def test_bombs_take_no_time(name: str) -> None:
    began = time.process_time()
    fate(CASES[name].data)
    assert time.process_time() - began < 1


def test_a_header_in_many_pieces_is_told_from_the_picture() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, 1) for tag in range(1000, 41_000))
    tags = b"II*\0" + struct.pack("<IH", 8, 40_000) + entries + bytes(4)
    assert fate(tags) == (Outcome.CORRUPT, None, "TIFF: a header of more than 32768 pieces")


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    paths = []
    for at, case in enumerate(images.bombs().values()):
        paths.append(tmp_path / str(at))
        paths[-1].write_bytes(case.data)
    assert len(paths) >= 15
    program = """
        import sys
        from pathlib import Path

        import torch
        from zsic.core.decode import DecodeError
        from zsic.core.preprocess import Geometry, prepare
        from zsic.core.spec import DecodeSpec

        def memory_mb(field):
            return int(Path("/proc/self/status").read_text().split(field)[1].split()[0]) // 1024

        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = memory_mb("VmRSS:")
        for path in sys.argv[1:]:
            for mode in ("pil", "exact"):
                try:
                    prepare(Path(path).read_bytes(), Geometry(224, "bicubic", (224, 224)), DecodeSpec(mode=mode))
                except DecodeError:
                    pass
        print(memory_mb("VmHWM:") - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, paths)]
    grown_mb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # Believed, they take 98 MB (a black PNG) to 13 GB (a line, resized).
    assert grown_mb < 60


FUZZ_SPEC = DecodeSpec(max_pixels=200_000)
FUZZ_GEOMETRY = Geometry(16, "bicubic", (16, 16))


def prepared_fate(data: bytes) -> tuple[Outcome, tuple[int, int] | None, str]:
    try:
        prepared = prepare(data, FUZZ_GEOMETRY, FUZZ_SPEC)
    except DecodeError:
        # The same code as `decode`, and so the same reason.
        return fate(data, FUZZ_SPEC)
    return Outcome.OK, (prepared.width, prepared.height), ""


def both_fates(data: bytes) -> None:
    """On anything, both modes make a row, and the same one."""
    by_pillow = fate(data, FUZZ_SPEC)
    assert prepared_fate(data) == by_pillow


# One of each format and kind of decoder, small.
SEEDS = [CASES[name].data for name in FINE if len(CASES[name].data) < 20_000]
MAGICS = [
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8X", b"\0\0\0\x20ftypavif", b"BM" + bytes(12) + b"\x28\0\0\0", b"<svg", b"",
]  # fmt: skip


@settings(max_examples=5 * settings.default.max_examples)
@given(st.sampled_from(MAGICS), st.binary(max_size=300))
@example(b"", b"")
def test_any_bytes_are_a_row(magic: bytes, rest: bytes) -> None:
    both_fates(magic + rest)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    reach = draw(st.sampled_from([40, 400, len(data)]))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, min(reach, len(data)) - 1))] = draw(st.integers(0, 255))
    start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    match draw(st.sampled_from(["keep", "cut", "remove", "repeat"])):
        case "cut":
            del data[stop:]
        case "remove":
            del data[start:stop]
        case "repeat":
            data[stop:stop] = data[start:stop]
    return bytes(data)


@settings(max_examples=5 * settings.default.max_examples)
@given(damaged_files())
def test_any_damage_is_a_row(data: bytes) -> None:
    both_fates(data)


def test_a_ppm_is_limited_by_its_pixels_and_not_by_its_bytes() -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = images.encode(Image.fromarray(noise_HW3), "PPM")
    assert np.array_equal(decode(data, DecodeSpec(max_bytes=100)), noise_HW3)
    assert fate(data, DecodeSpec(max_pixels=64 * 48 - 1))[0] is Outcome.TOO_MANY_PIXELS
    assert fate(b"P6\n1 1\n255\n" + bytes(1000), DecodeSpec(max_bytes=100, max_pixels=10))[0] is Outcome.TOO_LARGE
    assert fate(data[:-1]) == (Outcome.CORRUPT, (64, 48), "PPM: cut short")
    for mode in ("exact", "pil", "fast"):
        with pytest.raises(DecodeError, match="PPM: cut short"):
            prepare(data[:-1], Geometry(resize=32, resample="bicubic", crop=(32, 32)), DecodeSpec(mode=mode))


def test_a_ppm_gives_the_pixels_of_a_png_of_the_same_picture() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8))
    for mode in ("exact", "pil"):
        ours, theirs = (
            prepare(
                images.encode(noise, form),
                Geometry(resize=32, resample="bicubic", crop=(32, 32)),
                DecodeSpec(mode=mode),
            )
            for form in ("PPM", "PNG")
        )
        assert np.array_equal(ours.pixels_HW3, theirs.pixels_HW3)


@pytest.mark.parametrize(
    "head", [b"P6\n2 2\n65535\n", b"P6\n# by hand\n2 2\n255\n", b"P3\n2 2\n255\n", b"P6\n200000 2\n255\n"]
)
def test_other_kinds_of_pnm_are_not_decoded(head: bytes) -> None:
    assert fate(head + bytes(100))[0] is Outcome.UNSUPPORTED


@pytest.mark.parametrize("head", [b"\0\0\0\x18ftypisom\0\0\2\0isommp42", b"\x1a\x45\xdf\xa3", b"RIFF1234AVI LIST"])
def test_videos_are_called_so(head: bytes) -> None:
    detail = "begins like a video; source.fps (--fps) takes its frames"
    assert fate(head + bytes(50)) == (Outcome.NOT_AN_IMAGE, None, detail)
