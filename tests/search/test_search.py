"""Searches in outputs over real sources, with the bundled model's own towers."""

import base64
import functools
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.checkpoints import one_thread, tiny_checkpoints
from support.place import DISK_AND_S3, DISK_FIRST, open_place
from support.published import Lake, Reply, fill, publish
from support.runs import draw

from zsic.core.errors import ModelError, SourceError, SpecError
from zsic.core.preprocess import prepare
from zsic.core.spec import DecodeSpec, ModelSpec, StoreSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.search import SearchSpec, search
from zsic.search.gallery import render_gallery
from zsic.storage.objects import Objects
from zsic.storage.originals import Originals
from zsic.storage.rows import RawRow

__all__ = ["one_thread", "tiny_checkpoints"]


@pytest.fixture(scope="session")
def demo() -> Checkpoint:
    return resolve(ModelSpec())


@pytest.fixture(scope="session")
def encoder(demo: Checkpoint) -> ImageEncoder:
    return ImageEncoder(demo)


@pytest.fixture(scope="session")
def embed(encoder: ImageEncoder) -> Callable[[bytes], np.ndarray]:
    """The embedding of a file's picture, made once."""

    @functools.cache
    def encode(data: bytes) -> np.ndarray:
        pixels_HW3 = prepare(data, encoder.geometry, DecodeSpec()).pixels_HW3
        vector_D: np.ndarray = encoder.encode(pixels_HW3[None])[0].numpy()
        return vector_D

    return encode


@pytest.fixture(params=DISK_FIRST)
def lake(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    demo: Checkpoint,
    encoder: ImageEncoder,
    embed: Callable[[bytes], np.ndarray],
) -> Lake:
    """An output with embeddings by the bundled model."""
    place = open_place(request, tmp_path)
    fill(place)

    def answer(row: RawRow) -> Reply:
        assert row.data is not None
        return Reply("red circle", 0.5, 0.1, embed(row.data))

    store, rows = publish(
        place.at("out"), place.at("in"), answer, store=place.store, dim=encoder.dim, digest=demo.digest, backwards=True
    )
    return Lake(place, store, rows)


def expected(lake: Lake, query_D: np.ndarray, n: int) -> list[int]:
    rows = [
        (-float(np.frombuffer(row["embedding"], "<f2").astype("f8") @ query_D.astype("f8")), row["id"])
        for row in lake.rows
        if row["embedding"] is not None
    ]
    return [row_id for _, row_id in sorted(rows)[:n]]


@pytest.mark.parametrize("lake", DISK_AND_S3, indirect=True)
def test_texts_find_what_the_reference_finds(lake: Lake, demo: Checkpoint) -> None:
    texts = ("a red circle", "something green")
    found = search(SearchSpec(lake.output, texts, top=7, store=lake.place.store))
    assert [each.query for each in found] == list(texts)
    vectors_TD = TextEncoder(demo).encode(texts)
    by_id = {row["id"]: row for row in lake.rows}
    for each, query_D in zip(found, vectors_TD, strict=True):
        assert [hit.id for hit in each.hits] == expected(lake, query_D, 7)
        assert [hit.rank for hit in each.hits] == list(range(1, 8))
        for hit in each.hits:
            row = by_id[hit.id]
            assert (hit.uri, hit.key, hit.label) == (row["uri"], row["key"], row["label"])
            vector_D = np.frombuffer(row["embedding"], "<f2").astype("f8")
            assert hit.similarity == pytest.approx(vector_D @ query_D, abs=1e-6)


def test_templates_are_averaged(lake: Lake, demo: Checkpoint) -> None:
    templates = ("a photo of a {}.", "a drawing of a {}.")
    (found,) = search(SearchSpec(lake.output, ("ring",), templates=templates, top=9, store=lake.place.store))
    mean_D = TextEncoder(demo).encode(["a photo of a ring.", "a drawing of a ring."]).mean(axis=0)
    assert [hit.id for hit in found.hits] == expected(lake, mean_D / np.linalg.norm(mean_D), 9)


def test_a_picture_finds_itself_first(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(draw(25))
    (found,) = search(SearchSpec(lake.output, pictures=(tmp_path / "q.png",), top=3, store=lake.place.store))
    assert found.hits[0].key == "25.wrong"
    assert found.hits[0].similarity == pytest.approx(1, abs=2e-3)
    assert len(found.hits) == 3


def test_more_than_there_are_are_all(lake: Lake) -> None:
    (found,) = search(SearchSpec(lake.output, ("x",), top=1000, store=lake.place.store))
    assert len(found.hits) == sum(row["embedding"] is not None for row in lake.rows) == 26


def test_an_output_without_embeddings_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(1))
    publish(str(tmp_path / "out"), str(tmp_path / "a.jpg"))
    with pytest.raises(SpecError, match=r"keeps no embeddings .*--embeddings"):
        search(SearchSpec(str(tmp_path / "out"), ("x",)))


def test_another_model_is_refused(tmp_path: Path, demo: Checkpoint, tiny_checkpoints: dict[str, Path]) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(1))
    arguments: dict[str, Any] = {"dim": 4, "answer": lambda row: Reply("x", vector_D=[1, 0, 0, 0])}
    publish(str(tmp_path / "out"), str(tmp_path / "a.jpg"), digest="0123456789abcdef", **arguments)
    with pytest.raises(ModelError, match=rf"digest {demo.digest[:12]}.*demo, digest 0123456789ab"):
        search(SearchSpec(str(tmp_path / "out"), ("x",)))
    publish(str(tmp_path / "out2"), str(tmp_path / "a.jpg"), digest=demo.digest, **arguments)
    other = str(next(iter(tiny_checkpoints.values())))
    with pytest.raises(ModelError, match="has other weights"):
        search(SearchSpec(str(tmp_path / "out2"), ("x",), model=other))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nothing to search for"),
        ({"texts": ("x",), "top": 0}, "--top is 0"),
        ({"texts": ("x",), "top": 10**6}, "--top is 1000000"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SearchSpec("out", **fields)


def test_words_and_pictures_that_are_none_are_refused(lake: Lake, tmp_path: Path) -> None:
    def run(**fields: Any) -> None:
        search(SearchSpec(lake.output, store=lake.place.store, **fields))

    with pytest.raises(SpecError, match="is empty"):
        run(texts=(" ",))
    with pytest.raises(SpecError, match="--template: 'no place' has no"):
        run(texts=("x",), templates=("no place",))
    with pytest.raises(SourceError, match=r"--image: .*none.jpg: No such file"):
        run(pictures=(tmp_path / "none.jpg",))
    (tmp_path / "text.jpg").write_bytes(b"text")
    with pytest.raises(SourceError, match=r"--image: .*text.jpg: not_an_image"):
        run(pictures=(tmp_path / "text.jpg",))


def test_the_label_of_a_set_is_told(tmp_path: Path, demo: Checkpoint, encoder: ImageEncoder) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(1))
    vector_D = np.eye(encoder.dim)[0]
    publish(
        str(tmp_path / "out"),
        str(tmp_path / "a.jpg"),
        lambda row: Reply("cat", vector_D=vector_D),
        dim=encoder.dim,
        digest=demo.digest,
        set_name="pet",
    )
    for set_name in (None, "pet"):
        (found,) = search(SearchSpec(str(tmp_path / "out"), ("x",), set_name=set_name))
        assert found.hits[0].label == "cat"


class Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_thumbnails_and_asks_for_nothing(lake: Lake) -> None:
    lake.place.delete("in/b.tar")
    found = search(SearchSpec(lake.output, ("x", "y"), top=30, store=lake.place.store))
    objects = Objects(lake.place.store)
    page = Page(html := render_gallery(found, Originals(lake.store, objects), DecodeSpec(), "Search"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2 * 16
    for attributes in images:
        head, _, data = str(attributes["src"]).partition(",")
        assert head == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 240
    assert page.text.count("missing") == 2 * 10
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://", html)
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in str(policy)


def test_words_from_outside_stay_words(tmp_path: Path, demo: Checkpoint, encoder: ImageEncoder) -> None:
    hostile = '"><script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}'
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / '<img src=x onerror="1">.jpg').write_bytes(draw(1))
    vector_D = np.eye(encoder.dim)[0]
    output = str(tmp_path / "out")
    store, _ = publish(
        output,
        str(tmp_path / "in"),
        lambda row: Reply(hostile, vector_D=vector_D),
        dim=encoder.dim,
        digest=demo.digest,
    )
    found = search(SearchSpec(output, ("<b>bold</b> & more",)))
    page = Page(html := render_gallery(found, Originals(store, Objects(StoreSpec())), DecodeSpec(), "<u>"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("img") == 1
    assert not {"script", "u"} & set(tags)
    assert tags.count("b") == 1  # of the label
    assert "<b>bold</b> & more" in page.text
    assert "alert(1)" in page.text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html
