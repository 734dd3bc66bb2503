import io

import numpy as np
import pytest
from PIL import Image
from support.images import encode, oriented, picture

from zsic.core.decode import DecodeError
from zsic.core.spec import DecodeSpec
from zsic.core.thumbnail import make_thumbnail


def test_the_longer_side_is_as_asked_and_small_ones_stay() -> None:
    for size, expected in (((400, 200), (100, 50)), ((20, 30), (20, 30))):
        small = Image.open(io.BytesIO(make_thumbnail(encode(picture(*size), "PNG"), DecodeSpec(), 100)))
        assert (small.format, small.size) == ("JPEG", expected)


def test_it_is_upright() -> None:
    wide = picture(64, 48)
    small = Image.open(io.BytesIO(make_thumbnail(oriented(6, wide), DecodeSpec(), 64)))
    assert small.size == (48, 64)


def test_nothing_but_pixels_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    data = encode(picture(), "JPEG", exif=exif, comment=b"secret comment")
    assert data.count(b"secret") == 2
    assert b"secret" not in make_thumbnail(data, DecodeSpec(), 64)


def test_what_is_no_picture_is_an_error() -> None:
    with pytest.raises(DecodeError, match="not_an_image"):
        make_thumbnail(b"<html>", DecodeSpec(), 64)


def test_a_large_jpeg_that_is_decoded_to_a_fraction_looks_as_it_does_whole() -> None:
    jpeg = encode(picture(1600, 1200), "JPEG", quality=95)
    png = encode(Image.open(io.BytesIO(jpeg)), "PNG", compress_level=1)
    small, whole = (Image.open(io.BytesIO(make_thumbnail(data, DecodeSpec(), 100))) for data in (jpeg, png))
    assert small.size == whole.size == (100, 75)
    assert np.abs(np.asarray(small, np.int16) - np.asarray(whole, np.int16)).mean() < 3
