import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zsic.storage.kinds import SNIFF_BYTES, ending_of, is_hidden, shard_kind, sniff


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_what_pillow_writes_is_sniffed(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, form)
    assert sniff(buffer.getvalue()[:SNIFF_BYTES])


@given(st.text(max_size=SNIFF_BYTES))
def test_text_is_never_an_image(text: str) -> None:
    if not text.startswith(("GIF87a", "GIF89a")) and "\0" not in text:
        assert not sniff(text.encode()[:SNIFF_BYTES])


@pytest.mark.parametrize(
    "head",
    [b"", b"BM", b"BMW on the road, in the rain, at night", b"RIFF1234WAVEfmt ", b"1234ftypisom", b"II", b"\xff\xd8"],
)
def test_what_only_begins_alike_is_not_sniffed(head: bytes) -> None:
    assert not sniff(head)


@pytest.mark.parametrize(
    ("name", "ending"), [("a.JPG", ".jpg"), ("x/y.tar/z", ""), (".jpg", ""), ("a.b.c", ".c"), ("a.", "."), ("", "")]
)
def test_endings(name: str, ending: str) -> None:
    assert ending_of(name) == ending


def test_shards_are_known_by_their_ending() -> None:
    names = ("a.tar", "A.TAR.GZ", "a.tgz", "a.parquet", "a.pq", "a.zip", "tar")
    assert [shard_kind(name) for name in names] == ["tar", "tar", "tar", "parquet", "parquet", None, None]


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a/b.jpg", False),
        (".b.jpg", True),
        ("_DSC1.JPG", False),
        ("_s.tar", False),
        ("_SUCCESS", True),
        ("_metadata", True),
        ("_old/b.jpg", True),
        ("a/.git/b.jpg", True),
        ("a.b/c_d.jpg", False),
    ],
)
def test_hidden_names(path: str, hidden: bool) -> None:
    assert is_hidden(path) == hidden
