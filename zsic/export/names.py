"""What labels are called as folders, and images as files: safe on any disk, and never two alike."""

import hashlib
from collections import Counter
from collections.abc import Iterable

from zsic.core.header import sniff
from zsic.core.schema import INDEX_BITS

MAX_FOLDER_BYTES = 200
"""File systems allow 255."""
_MAX_STEM_BYTES = 120
_FORBIDDEN = frozenset('/\\:*?"<>|%\0')
"""By Linux, Windows, or the way it is written itself."""
_ENDINGS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "PPM": ".ppm",
}


def name_folders(labels: Iterable[str]) -> dict[str, str]:
    """Give each label a folder of its own, in order of the labels.

    What cannot be in a folder's name is percent-encoded, so different labels have different folders.  Names that are
    too long are cut, and labels that differ by case alone, which not every disk tells apart, stay apart: both end in
    `%~` and a hash of the label, as no encoded name does.
    """
    encoded = {label: _encode(label) for label in sorted(set(labels))}
    n_uses = Counter(name.casefold() for name in encoded.values())
    return {
        label: _end_in_hash(label, name)
        if n_uses[name.casefold()] > 1 or len(name.encode()) > MAX_FOLDER_BYTES
        else name
        for label, name in encoded.items()
    }


def name_file(row_id: int, uri: str, key: str | None) -> str:
    """Name a row's image, without its ending: how it was called, and its id, which makes the name the only one.

    >>> name_file((3 << 24) + 12, "s3://bucket/shard.tar", "beach/sun set.jpg")
    'sun_set-3-12'
    """
    index = row_id & ((1 << INDEX_BITS) - 1)
    # The key of a row of a Parquet file is its number, which is in the id.
    called = uri if key is None or key == str(index) else key
    stem = called[called.rfind("/") + 1 :]
    stem = stem[: stem.rfind(".")] if stem.rfind(".") > 0 else stem
    clean = "".join(char if char.isalnum() or char in "-_" else "_" for char in stem)
    return f"{_cut(clean, _MAX_STEM_BYTES) or 'image'}-{row_id >> INDEX_BITS}-{index}"


def read_id(name: str) -> int | None:
    """The id of the row whose image a file is, by its name; None if it is none of ours."""
    ordinal, _, index = name.rpartition(".")[0].rpartition("-")
    ordinal = ordinal.rpartition("-")[2]
    if not (ordinal.isdecimal() and index.isdecimal()):
        return None
    return int(ordinal) << INDEX_BITS | int(index)


def ending_of(data: bytes) -> str | None:
    """The ending that the content asks for, whatever it was called; None if it is no image that is decoded."""
    return _ENDINGS.get(sniff(data).name)


def _encode(label: str) -> str:
    name = "".join(_escape(char) if char in _FORBIDDEN or not char.isprintable() else char for char in label)
    # A dot in front hides; Windows takes dots and spaces off the end.
    if name[:1] in (".", " "):
        name = _escape(name[0]) + name[1:]
    if name[-1:] in (".", " "):
        name = name[:-1] + _escape(name[-1])
    return name or "%"


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _end_in_hash(label: str, name: str) -> str:
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_cut(name, MAX_FOLDER_BYTES - 18)}%~{digest}"


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode("utf-8", "ignore")
