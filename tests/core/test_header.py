"""Files are named by their first bytes: images that zsic does not decode are still images."""

import pytest

from zsic.core.header import sniff

IMAGES = {
    "JPEG XL": [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "JPEG 2000": [b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"],
    "PSD": [b"8BPS"],
    "ICO": [b"\0\0\x01\0"],
    "CUR": [b"\0\0\x02\0"],
    "ICNS": [b"icns"],
    "DDS": [b"DDS "],
    "OpenEXR": [b"\x76\x2f\x31\x01"],
    "Radiance HDR": [b"#?RADIANCE"],
    "QOI": [b"qoif"],
    "FLIF": [b"FLIF"],
    "BPG": [b"BPG\xfb"],
    "XCF": [b"gimp xcf"],
    "DjVu": [b"AT&TFORM"],
    "FITS": [b"SIMPLE  ="],
    "PostScript": [b"%!PS", b"\xc5\xd0\xd3\xc6"],
}
OTHERS = {
    "video": [b"\x1a\x45\xdf\xa3"],
    "PDF": [b"%PDF-"],
    "ZIP": [b"PK\3\4"],
    "gzip": [b"\x1f\x8b"],
    "pickle": [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"],
}


@pytest.mark.parametrize(
    ("name", "is_image"), [*((name, True) for name in IMAGES), *((name, False) for name in OTHERS)]
)
def test_formats_that_are_not_decoded_are_told_from_files_that_are_no_images(name: str, is_image: bool) -> None:
    for head in (IMAGES if is_image else OTHERS)[name]:
        assert sniff(head + bytes(40)) == (name, is_image)


@pytest.mark.parametrize("size", [12, 16, 40, 52, 56, 64, 108, 124])
def test_a_bmp_is_known_by_the_size_of_its_header(size: int) -> None:
    assert sniff(b"BM" + bytes(12) + size.to_bytes(4, "little")) == ("BMP", True)
    assert sniff(b"BM" + bytes(12) + (size + 1).to_bytes(4, "little")).name == ""
