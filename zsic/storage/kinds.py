"""What an object is taken for: by its name in a listing, by its first bytes inside a shard."""

from typing import Literal

Kind = Literal["image", "tar", "parquet", "video", "part"]
"""Parts are those of an output that gets other labels."""

# fmt: off
IMAGE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".ico",
))
"""Names that promise an image.  Some of these formats are not decoded: then the row says `unsupported`."""
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
PARQUET_ENDINGS = (".parquet", ".parq", ".pq")
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Names of videos, which are sources of frames in a job that says how many a second it wants."""
MANIFEST_ENDINGS = (".csv", ".jsonl")
COMPANION_ENDINGS = frozenset((
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".yaml", ".yml", ".xml", ".py", ".log", ".lock",
    ".crc", ".md5", ".sha256", ".idx",
))
# fmt: on
"""Captions, metadata and check sums that lie beside images: left out where a folder, a prefix, or a glob that
does not ask for them, comes across them."""

SNIFF_BYTES = 32
"""How much of an object `sniff` looks at."""


def ending_of(name: str) -> str:
    """Return the ending in lower case with its dot, or nothing; `name` may be a whole uri."""
    base = name[name.rfind("/") + 1 :]
    at = base.rfind(".")
    return base[at:].lower() if at > 0 else ""


def shard_kind(name: str) -> Literal["tar", "parquet"] | None:
    """Tell a shard by its ending."""
    lower = name.lower()
    if lower.endswith(TAR_ENDINGS):
        return "tar"
    return "parquet" if lower.endswith(PARQUET_ENDINGS) else None


def is_video(name: str) -> bool:
    """Tell a video by its ending."""
    return name.lower().endswith(VIDEO_ENDINGS)


def is_companion(name: str) -> bool:
    """Whether the ending says that this is no image but lies beside images."""
    return ending_of(name) in COMPANION_ENDINGS


def is_hidden(path: str) -> bool:
    """Whether one step of a path below a listed folder hides it.

    A dot hides; an underscore hides folders and marker files (`_temporary/`, `_SUCCESS`) but not images and
    shards: cameras write `_DSC0001.JPG`.

    >>> is_hidden(".git/x.png"), is_hidden("_zsic/x.png"), is_hidden("a/_SUCCESS"), is_hidden("a/_DSC1.JPG")
    (True, True, True, False)
    """
    *folders, name = path.split("/")
    if any(folder.startswith((".", "_")) for folder in folders):
        return True
    if name.startswith("_"):
        return ending_of(name) not in IMAGE_ENDINGS and shard_kind(name) is None and not is_video(name)
    return name.startswith(".")


def sniff(head: bytes) -> bool:
    """Whether bytes begin like an image: JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF, HEIC or JPEG XL.

    Decides only whether a shard's member whose name promises nothing becomes a row; text never does.
    """
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    if head.startswith((b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cJXL \r\n\x87\n")):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
    # "BM" alone begins many a text; the size of the header that follows is one of a few.
    return head[:2] == b"BM" and head[15:18] == b"\0\0\0" and head[14:15] in b"\x0c\x28\x34\x38\x40\x6c\x7c"
