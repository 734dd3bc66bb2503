"""Members that carry an image's name and are none: what turns up in every real collection."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from zsic.demo.drawing import draw
from zsic.demo.scene import sample


def broken_members(n_members: int, rng: Random) -> list[tuple[str, bytes]]:
    """Make names and contents, each kind of damage in turn."""
    kinds = list(_MAKERS)
    names = [kinds[index % len(kinds)] for index in range(n_members)]
    return [(f"broken-{index:02d}-{name}", _MAKERS[name](rng)) for index, name in enumerate(names)]


def _encoded(rng: Random, image_format: str) -> bytes:
    buffer = io.BytesIO()
    draw(sample(rng), rng, (240, 200)).save(buffer, image_format)
    return buffer.getvalue()


def _empty(_rng: Random) -> bytes:
    return b""


def _cut_short(rng: Random) -> bytes:
    content = _encoded(rng, "JPEG")
    return content[: len(content) // 3]


def _error_page(_rng: Random) -> bytes:
    return b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body>Link expired</body></html>\n"


def _scrambled(rng: Random) -> bytes:
    """A PNG whose header is sound and whose pixel data are not."""
    content = bytearray(_encoded(rng, "PNG"))
    middle = len(content) // 2
    content[middle : middle + 64] = rng.randbytes(64)
    return bytes(content)


def _bomb(_rng: Random) -> bytes:
    """A PNG of some hundred kilobytes that unpacks to 1.6 billion black pixels."""
    side_px = 40_000
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + side_px // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(side_px // 100)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _vector_graphic(_rng: Random) -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9" fill="red"/></svg>\n'


_MAKERS: Final[Mapping[str, Callable[[Random], bytes]]] = MappingProxyType(
    {
        "empty.jpg": _empty,
        "cut-short.jpg": _cut_short,
        "error-page.jpg": _error_page,
        "scrambled.png": _scrambled,
        "too-large.png": _bomb,
        "vector.png": _vector_graphic,
    }
)
