"""Pictures and hostile files, made in code: what a source may hold, and what must become of each."""

import io
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from zsic.core.outcome import Outcome

ORIENTATION = 0x0112


class Case(NamedTuple):
    data: bytes
    outcome: Outcome
    size: tuple[int, int] | None
    """Width and height as displayed; None where no header says them."""


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth picture with some noise, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9 + seed) + y / height, np.cos(y / 7) + x / width, x / width - y / height], 2)
    noise = np.random.default_rng(seed).normal(0, 0.05, waves.shape)
    return Image.fromarray(np.uint8(np.clip(128 + 60 * (waves + noise), 0, 255)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """What is hardest to resize alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def oriented(turn: int, image: Image.Image | None = None, format: str = "JPEG") -> bytes:
    """A file whose EXIF says that it lies turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return encode(image or picture(), format, exif=exif)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *, colour: int = 2, depth: int = 8, extra: bytes = b"", idat: bytes = b"") -> bytes:
    """A PNG by hand: any size in the header, any chunks before the pixels, any compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def black_png(width: int, height: int) -> bytes:
    """A complete PNG of few bytes and many pixels (1 bit each)."""
    rows = bytes((1 + (width + 7) // 8) * height)
    return png(width, height, colour=0, depth=1, idat=zlib.compress(rows, 1))


def tiff(tags: Iterable[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """A little-endian TIFF by hand, from (tag, type, count, value); `body` begins where `tiff(tags)` ends."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries) // 12) + entries + bytes(4) + body


def grey_tiff(width: int, height: int, bits: int, body: bytes, **more: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(278, 4, 1, height), (279, 4, 1, len(body))]
    offset = len(tiff([*tags, (273, 4, 1, 0)]))
    return tiff([*tags, (273, 4, 1, offset)], body)


def _tiles() -> bytes:
    """A TIFF of 12 tiles, 16 x 16 each."""
    grey = np.asarray(picture().convert("L"))
    tiles = [grey[y : y + 16, x : x + 16].tobytes() for y in range(0, 48, 16) for x in range(0, 64, 16)]
    tags = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(322, 3, 1, 16), (323, 3, 1, 16), (324, 4, 12, 0), (325, 4, 12, 0)]
    start = len(tiff(tags))
    tags[-2:] = [(324, 4, 12, start), (325, 4, 12, start + 48)]
    offsets = struct.pack("<12I", *(start + 96 + 256 * number for number in range(12)))
    return tiff(tags, offsets + struct.pack("<12I", *[256] * 12) + b"".join(tiles))


def frames() -> list[Image.Image]:
    """The frames of an animation; the first is `picture()`."""
    return [picture(), picture(seed=1), picture(seed=2)]


def animation(format: str, **options: object) -> bytes:
    first, *others = frames()
    return encode(first, format, save_all=True, append_images=others, **options)


def with_many_scans(copies: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * copies + data[-2:]


@cache
def hostile_images() -> dict[str, Case]:
    """Files that are no images, damaged, extreme, rare or merely odd; with the default limits."""
    return {**_not_images(), **_not_decoded(), **_too_many_pixels(), **_damaged(), **_odd_but_fine()}


def bombs() -> dict[str, Case]:
    """The hostile images that would take much memory if they were believed."""
    return {
        name: case
        for name, case in hostile_images().items()
        if "bomb" in name or case.outcome is Outcome.TOO_MANY_PIXELS
    }


def _not_images() -> dict[str, Case]:
    pickled = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    files = {
        "one byte": b"\xff",
        "two bytes of a JPEG": b"\xff\xd8",
        "HTML": b"<!DOCTYPE html>\n<html><script>alert(1)</script><svg></svg></html>",
        "XML": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
        "PDF": b"%PDF-1.7\n",
        "ZIP": b"PK\3\4" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "pickle": pickled,
        "text": b"BMW builds cars",
        "JSON": b'{"error": "not found"}',
        "zeros": bytes(1000),
        "MP4": b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(50),
    }
    cases = {name: Case(data, Outcome.NOT_AN_IMAGE, None) for name, data in files.items()}
    return {"empty": Case(b"", Outcome.EMPTY, None), **cases}


def _not_decoded() -> dict[str, Case]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>'
    files = {
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "HEIC with a mif1 brand": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100),
        "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50),
        "JPEG XL codestream": b"\xff\x0a" + bytes(50),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "PSD": b"8BPS\0\1" + bytes(50),
        "ICO": encode(picture(32, 32), "ICO"),
        "PNM": encode(picture().convert("L"), "PPM"),
        "SVG": svg,
        "SVG with a prologue": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n" + svg,
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    cases = {name: Case(data, Outcome.UNSUPPORTED, None) for name, data in files.items()}
    jpeg = encode(picture(), "JPEG")
    depth_at = jpeg.index(b"\xff\xc0") + 4
    grey = Image.fromarray(np.full((8, 9), 0.5, np.float32))
    return cases | {
        "JPEG of 12 bits": Case(jpeg[:depth_at] + b"\x0c" + jpeg[depth_at + 1 :], Outcome.UNSUPPORTED, None),
        "TIFF of floats": Case(encode(grey, "TIFF"), Outcome.UNSUPPORTED, (9, 8)),
        "TIFF of 32-bit integers": Case(grey_tiff(2, 1, 32, bytes(8)), Outcome.UNSUPPORTED, (2, 1)),
        "TIFF of 7 bits": Case(grey_tiff(8, 1, 7, bytes(7)), Outcome.UNSUPPORTED, None),
    }


def _too_many_pixels() -> dict[str, Case]:
    jpeg = encode(picture(), "JPEG")
    size_at = jpeg.index(b"\xff\xc0") + 5
    huge_jpeg = jpeg[:size_at] + struct.pack(">HH", 30000, 30000) + jpeg[size_at + 4 :]
    largest_jpeg = jpeg[:size_at] + b"\xff" * 4 + jpeg[size_at + 4 :]
    fax = encode(Image.new("1", (10000, 9999)), "TIFF", compression="group4")
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16383).to_bytes(3, "little") * 2
    gif = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + b"!\xf9\x04\x08\0\0\0\0"
    gif += b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;"
    sizes = {
        "PNG header 30000x30000": (png(30000, 30000), (30000, 30000)),
        "PNG of black 9900x9900": (black_png(9900, 9900), (9900, 9900)),
        "PNG of black 65500x1500": (black_png(65500, 1500), (65500, 1500)),
        "PNG of a long line 65501x1": (black_png(65501, 1), (65501, 1)),
        "PNG header 2147483647x2147483647": (png(2**31 - 1, 2**31 - 1), (2**31 - 1, 2**31 - 1)),
        "JPEG header 30000x30000": (huge_jpeg, (30000, 30000)),
        "JPEG header 65535x65535": (largest_jpeg, (65535, 65535)),
        "TIFF fax 10000x9999": (fax, (10000, 9999)),
        "WebP canvas 16384x16384": (b"RIFF" + struct.pack("<I", 22) + b"WEBP" + webp, (16384, 16384)),
        "TIFF header 100000x100000": (grey_tiff(100000, 100000, 8, b"\0"), (100000, 100000)),
        "BMP header 100000x100000": (_bmp(100000, 100000), (100000, 100000)),
        "GIF frame bomb 65535x65535": (gif, None),
    }
    return {name: Case(data, Outcome.TOO_MANY_PIXELS, size) for name, (data, size) in sizes.items()}


def _bmp(width: int, height: int) -> bytes:
    bmp = bytearray(encode(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    return bytes(bmp)


def _damaged() -> dict[str, Case]:
    image = picture(256, 192)
    jpeg, whole_png = encode(image, "JPEG"), encode(image, "PNG")
    exif_flood = jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", 10008) + b"Exif\0\0" + bytes(10000)) * 120
    known = {
        "JPEG half": jpeg[: len(jpeg) // 2],
        "JPEG without an end": jpeg[:-2],
        "PNG pixels with a bad checksum": _with_bad_checksum(whole_png),
        "JPEG without its last percent": jpeg[: len(jpeg) * 99 // 100],
        "PNG half": whole_png[: len(whole_png) // 2],
        "GIF half": (gif := encode(image, "GIF"))[: len(gif) // 2],
        "BMP half": (bmp := encode(image, "BMP"))[: len(bmp) // 2],
        "TIFF half": (raw := encode(image, "TIFF"))[: len(raw) // 2],
    }
    unknown = {
        "JPEG tenth": jpeg[: len(jpeg) // 10],
        "JPEG EXIF bomb": exif_flood + jpeg[2:],
        **_floods(),
        "PNG header with a bad checksum": whole_png[:20] + b"\1" + whole_png[21:],
        "PNG without width": png(0, 10),
        "PNG of more sides than int32": png(2**32 - 1, 1),
        "PNG signature alone": b"\x89PNG\r\n\x1a\n",
        "PNG zTXt bomb": png(8, 8, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 10**7)))),
        "PNG iTXt bomb": png(8, 8, extra=chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2 * 10**7)))),
        "PNG profile bomb": png(8, 8, extra=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 * 10**7)))),
        "GIF without a frame": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "WebP half": (webp := encode(image, "WEBP"))[: len(webp) // 2],
        "BMP of impossible height": _bmp(64, -(2**31)),
        "TIFF that points nowhere": b"II*\0\xff\xff\xff\x7f",
        "TIFF wider than int32": grey_tiff(2**32 - 1, 1, 8, b"\0"),
    }
    if features.check("avif"):
        unknown["AVIF tenth"] = (avif := encode(image, "AVIF"))[: len(avif) // 10]
    cases = {name: Case(data, Outcome.CORRUPT, image.size) for name, data in known.items()}
    cases |= {name: Case(data, Outcome.CORRUPT, None) for name, data in unknown.items()}
    return cases | {"JPEG scans bomb": Case(with_many_scans(120), Outcome.CORRUPT, (64, 48))}


def _with_bad_checksum(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 4 + struct.unpack(">I", data[data.index(b"IDAT") - 4 :][:4])[0]
    return data[:at] + bytes(4) + data[at + 4 :]


def _floods() -> dict[str, bytes]:
    """Files of many parts, each of which Pillow would keep an object for; some are hidden from whoever counts badly."""
    jpeg, small, gif = encode(picture(), "JPEG"), encode(picture(8, 8), "PNG"), encode(picture(8, 8), "GIF")
    palette_end = 13 + (3 << (gif[10] & 7) + 1)
    head, frame = gif[:palette_end], gif[palette_end:]
    comments = b"!\xfe\1a\0" * 400_000
    return {
        "JPEG segments bomb": jpeg[:2] + b"\xff\xe5\0\2" * 10**6 + jpeg[2:],
        "JPEG segments bomb after junk": jpeg[:20] + b"junk" + b"\xff\xe5\0\2" * 10**6 + jpeg[20:],
        "JPEG segments bomb behind a false one": jpeg[:2] + b"\xff\xf0\xff\xfe" + b"\xff\xe5\0\2" * 10**6 + jpeg[2:],
        "JPEG filling bomb": jpeg[:2] + b"\xff" * 2 * 10**6 + jpeg[2:],
        "JPEG junk bomb": jpeg[:20] + bytes(2 * 10**6) + jpeg[20:],
        "PNG chunks bomb": small[:33] + chunk(b"vpAg", b"") * 800_000 + small[33:],
        "PNG chunks bomb after the pixels": small[:-12] + chunk(b"vpAg", b"") * 800_000 + small[-12:],
        "GIF comments bomb": head + comments + frame,
        "GIF comments bomb after junk": head + b"junk" + comments + frame,
        "GIF comments bomb behind a false block": head + b"!\xf9\0\0" + comments + frame,
        "GIF blocks bomb": head + b"!\xfe" + b"\2ab" * 10**6 + b"\0" + frame,
    }


def _odd_but_fine() -> dict[str, Case]:
    image = picture()
    jpeg, palette = encode(image, "JPEG"), image.quantize(16)
    cmyk = encode(image.convert("CMYK"), "JPEG")
    transform_at = cmyk.index(b"Adobe") + 11
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    many_frames = [Image.new("P", (16, 16), number % 255) for number in range(2999)]
    files = {
        "JPEG": jpeg,
        "JPEG progressive": encode(image, "JPEG", progressive=True),
        "JPEG grey": encode(image.convert("L"), "JPEG"),
        "JPEG CMYK": cmyk,
        "JPEG YCCK": cmyk[:transform_at] + b"\2" + cmyk[transform_at + 1 :],
        "JPEG 4:4:4": encode(image, "JPEG", subsampling=0),
        "JPEG and 1 MB of junk": jpeg + bytes(2**20),
        "JPEG of 1,000 segments": jpeg[:2] + b"\xff\xe5\0\4zs" * 1000 + jpeg[2:],
        "JPEG with a junk profile": encode(image, "JPEG", icc_profile=b"z" * 60000),
        "JPEG EXIF orientation 99": oriented(99),
        "JPEG EXIF malformed": encode(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        "JPEG EXIF orientation a text": encode(image, "JPEG", exif=b"Exif\0\0" + tiff([(274, 2, 3, 0x7075)])),
        "JPEG of two pictures (MPO)": animation("MPO"),
        "PNG": encode(image, "PNG"),
        "PNG and a ZIP": encode(image, "PNG") + b"PK\3\4" + bytes(50),
        "PNG without an end": encode(image, "PNG")[:-12],
        "PNG 1 bit": encode(image.convert("1"), "PNG"),
        "PNG grey": encode(image.convert("L"), "PNG"),
        "PNG grey and alpha": encode(alpha.convert("LA"), "PNG"),
        "PNG alpha": encode(alpha, "PNG"),
        "PNG palette": encode(palette, "PNG"),
        "PNG palette, alphas": encode(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "PNG palette, one index": encode(palette, "PNG", transparency=3),
        "PNG transparent colour": encode(image, "PNG", transparency=image.getpixel((0, 0))),
        "PNG 16 bits": encode(Image.fromarray(np.full((48, 64), 40000, np.uint16)), "PNG"),
        "PNG animated": animation("PNG"),
        "GIF": encode(palette, "GIF"),
        "GIF animated": animation("GIF"),
        "GIF of 3000 frames": encode(palette, "GIF", save_all=True, append_images=many_frames),
        "BMP": encode(image, "BMP"),
        "BMP upside down": _bmp(64, -48),
        "TIFF": encode(image, "TIFF"),
        "TIFF LZW": encode(image, "TIFF", compression="tiff_lzw"),
        "TIFF fax": encode(image.convert("1"), "TIFF", compression="group4"),
        "TIFF JPEG": encode(image, "TIFF", compression="jpeg"),
        "TIFF CMYK": encode(image.convert("CMYK"), "TIFF"),
        "TIFF LAB": encode(image.convert("LAB"), "TIFF"),
        "TIFF of tiles": _tiles(),
        "TIFF palette and alpha": encode(palette.convert("PA"), "TIFF"),
        "TIFF 16 bits": encode(Image.fromarray(np.full((48, 64), 40000, np.uint16)), "TIFF"),
        "TIFF of three pages": animation("TIFF"),
        "BigTIFF": encode(image, "TIFF", big_tiff=True),
        "WebP": encode(image, "WEBP"),
        "WebP lossless, alpha": encode(alpha, "WEBP", lossless=True),
        "WebP animated": animation("WEBP"),
    }
    if features.check("avif"):
        files |= {"AVIF": encode(image, "AVIF"), "AVIF animated": animation("AVIF")}
    cases = {name: Case(data, Outcome.OK, image.size) for name, data in files.items()}
    for turn in range(1, 9):
        size = image.size if turn < 5 else image.size[::-1]
        cases[f"JPEG EXIF orientation {turn}"] = Case(oriented(turn, image), Outcome.OK, size)
    return cases | {
        "PNG pixels bomb": Case(png(8, 8, idat=zlib.compress(bytes(10**8), 1)), Outcome.OK, (8, 8)),
        "PNG of a line, a bomb when resized": Case(black_png(65500, 1), Outcome.OK, (65500, 1)),
        "TIFF 12 bits": Case(grey_tiff(2, 1, 12, b"\xff\xf8\0"), Outcome.OK, (2, 1)),
    }
