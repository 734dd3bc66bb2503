"""What a file is, by its first bytes; its name is never asked."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple


class Signature(NamedTuple):
    """What the first bytes say: a name for messages, and whether it is an image at all."""

    name: str
    is_image: bool


_UNKNOWN = Signature("", False)

# Those that are decoded come first: they are what sources hold.
_PREFIXES: tuple[tuple[bytes, Signature], ...] = tuple(
    (prefix, Signature(name, is_image))
    for prefix, name, is_image in (
        (b"\xff\xd8\xff", "JPEG", True),
        (b"\x89PNG\r\n\x1a\n", "PNG", True),
        (b"GIF87a", "GIF", True),
        (b"GIF89a", "GIF", True),
        (b"II*\0", "TIFF", True),
        (b"MM\0*", "TIFF", True),
        (b"II+\0", "TIFF", True),
        (b"MM\0+", "TIFF", True),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", True),
        (b"\xff\x0a", "JPEG XL", True),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", True),
        (b"\xff\x4f\xff\x51", "JPEG 2000", True),
        (b"8BPS", "PSD", True),
        (b"\0\0\x01\0", "ICO", True),
        (b"\0\0\x02\0", "CUR", True),
        (b"icns", "ICNS", True),
        (b"DDS ", "DDS", True),
        (b"\x76\x2f\x31\x01", "OpenEXR", True),
        (b"#?RADIANCE", "Radiance HDR", True),
        (b"qoif", "QOI", True),
        (b"FLIF", "FLIF", True),
        (b"BPG\xfb", "BPG", True),
        (b"gimp xcf", "XCF", True),
        (b"AT&TFORM", "DjVu", True),
        (b"SIMPLE  =", "FITS", True),
        (b"%!PS", "PostScript", True),
        (b"\xc5\xd0\xd3\xc6", "PostScript", True),
        (b"\x1a\x45\xdf\xa3", "video", False),
        (b"%PDF-", "PDF", False),
        (b"PK\3\4", "ZIP", False),
        (b"\x1f\x8b", "gzip", False),
        (b"\x80\x02", "pickle", False),
        (b"\x80\x03", "pickle", False),
        (b"\x80\x04", "pickle", False),
        (b"\x80\x05", "pickle", False),
    )
)
# Of PPM, what needs no reading of numbers: 8 bits, in binary, as frames of videos travel.
_PPM = re.compile(rb"P6\n\d{1,5} \d{1,5}\n255\n")
_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_SVG_PROLOGUES = (b"<svg", b"<?xml", b"<!--", b"<!doctype svg")


def sniff(data: bytes) -> Signature:
    """Name the format of a file; bytes that begin like nothing known give an empty name.

    >>> sniff(b"GIF89a").name, sniff(b"%PDF-1.7"), sniff(b"%PDF-1.7").is_image
    ('GIF', Signature(name='PDF', is_image=False), False)
    """
    for prefix, signature in _PREFIXES:
        if data.startswith(prefix):
            return signature
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Signature("WEBP", True)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return Signature("video", False)
    if data[4:8] == b"ftyp":
        return _sniff_brands(data)
    # Two letters are too little to go by: text may begin so.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return Signature("BMP", True)
    if _PPM.match(data):
        return Signature("PPM", True)
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return Signature("PNM", True)
    return _sniff_markup(data)


def _sniff_brands(data: bytes) -> Signature:
    """Tell ISO media files apart.  Major brand `mif1` may be AVIF or HEIC: the compatible brands tell."""
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {box[at : at + 4] for at in range(0, len(box), 4)}
    if brands & {b"avif", b"avis"}:
        return Signature("AVIF", True)
    if brands & _HEIF_BRANDS:
        return Signature("HEIC", True)
    return Signature("video", False)


def _sniff_markup(data: bytes) -> Signature:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_SVG_PROLOGUES) and b"<svg" in start:
        return Signature("SVG", True)
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Signature("HTML", False)
    if start.startswith(b"<"):
        return Signature("XML", False)
    return _UNKNOWN


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the first chunk of a WebP, or None where there is none that says."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:])
        return width & 0x3FFF, height & 0x3FFF
    return None


_MARKERS_ALONE = frozenset(bytes((code,)) for code in (0, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
"""Markers of JPEG after which Pillow expects no length."""


def has_too_many_parts(name: str, data: bytes, limit: int) -> bool:
    """Whether a JPEG, PNG or GIF has more than `limit` segments, chunks or blocks around its pixels.

    Pillow keeps an object for each: 64 MB of empty ones take 2 GB.  Damage ends the count, for a decoder to find.
    """
    walk = {"JPEG": _jpeg_parts, "PNG": _png_parts, "GIF": _gif_parts}.get(name)
    return walk is not None and any(n >= limit for n, _ in enumerate(walk(data)))


def _jpeg_parts(data: bytes) -> Iterator[int]:
    """Where each segment before the pixels begins, and what fills gaps, by 64 bytes of it."""
    at = 2
    while (start := data.find(b"\xff", at)) >= 0:
        yield from range(at, start, 64)
        yield (at := start)
        marker = data[at + 1 : at + 2]
        if marker == b"\xff":
            at += 1
        elif marker in _MARKERS_ALONE:
            at += 2
        elif marker < b"\xc0" or marker == b"\xda":
            return
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _png_parts(data: bytes) -> Iterator[int]:
    at = 8
    while at + 8 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def has_bad_checksum(data: bytes) -> bool:
    """Whether a PNG has other pixels than were written; of all chunks, Pillow leaves only these unchecked."""
    for at in _png_parts(data):
        length = int.from_bytes(data[at : at + 4], "big")
        stored = data[at + 8 + length : at + 12 + length]
        if data[at + 4 : at + 8] == b"IDAT" and len(stored) == 4:
            if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != int.from_bytes(stored, "big"):
                return True
        elif data[at + 4 : at + 8] == b"IEND":
            return False
    return False


def _gif_parts(data: bytes) -> Iterator[int]:
    """Where each block before the first frame begins, and each within it; read just as Pillow does."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10:11] and data[10] & 0x80 else 0)
    while at < len(data) and data[at] not in b",;":
        yield at
        if data[at] != 0x21:  # no "!": passed over
            at += 1
            continue
        label, first = data[at + 1 : at + 2], data[at + 3 : at + 3 + sum(data[at + 2 : at + 3])]
        at += 2
        # All but comments have a first block, which may be empty; the one that tells of loops, a second.
        for _ in range(0 if label == b"\xfe" else 2 if label == b"\xff" and first.startswith(b"NETSCAPE2.0") else 1):
            at += 1 + sum(data[at : at + 1])
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1
