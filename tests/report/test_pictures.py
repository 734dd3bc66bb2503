"""The pictures of rows, read again: from files, shards and Parquet, gone, changed or late."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.sample_output import Answer, Lake, plain, write_parquet, write_tar

from zsic.core.spec import DecodeSpec, SourceSpec, StoreSpec
from zsic.report import make_report
from zsic.report.cards import Card
from zsic.report.pictures import LARGE_PX, SMALL_PX, Picture, read_pictures
from zsic.report.report import Report
from zsic.storage import originals
from zsic.storage.output import Output
from zsic.storage.rows import RawRow
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.store import Store, open_store

NO_STORE = StoreSpec()


def colour_of(number: int) -> tuple[int, int, int]:
    return (40 * number % 256, 90 * number % 256, 255 - 30 * number % 256)


def image(number: int) -> bytes:
    return plain(colour_of(number), (600 + number, 400))


def answer(row: RawRow) -> Answer:
    return [("cat", 0.75), ("dog", 0.25)]


def publish(folder: Path, *uris: str, **fields: Any) -> Store:
    return Lake(folder / "out", SourceSpec(uris=uris, **fields), answer, ("cat", "dog")).publish()


def report(store: Store, **changed: Any) -> Report:
    return make_report(store, **{"n_images": 100} | changed)


def colour_in(uri: str | None) -> tuple[int, ...]:
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    drawn = Image.open(io.BytesIO(base64.b64decode(data)))
    pixel = drawn.resize((1, 1)).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def assert_shows(card: Card, found: Picture) -> None:
    """Each picture is that of its row: known by its colour, and the width that counts up with it."""
    assert card.width is not None
    assert colour_in(found.small) == pytest.approx(colour_of(card.width - 600), abs=4)


@pytest.fixture
def members() -> list[tuple[str, bytes]]:
    # A name comes again, and its key says so.
    return [("a.png", image(0)), ("b.png", image(1)), ("a.png", image(2)), ("c.txt", b"no"), ("d.png", image(3))]


def test_from_loose_files_shards_and_parquet(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    (tmp_path / "loose").mkdir()
    for number in (4, 5):
        (tmp_path / "loose" / f"{number}.png").write_bytes(image(number))
    write_tar(tmp_path / "loose" / "s.tar", members)
    write_parquet(tmp_path / "loose" / "p.parquet", [image(number) for number in (6, 7, 8, 9, 10)])
    found = report(publish(tmp_path, str(tmp_path / "loose")))
    assert len(found.cards) == 11
    assert {card.key for card in found.cards} == {"a.png", "b.png", "a.png#2", "d.png", None, "0", "1", "2", "3", "4"}
    for card in found.cards:
        assert_shows(card, found.pictures[card.id])


def test_their_size_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(plain((9, 9, 9), (1500, 3000)))
    (tmp_path / "tiny.png").write_bytes(plain((9, 9, 9), (5, 4)))
    found = report(publish(tmp_path, str(tmp_path / "*.png")))
    big, tiny = (found.pictures[card.id] for card in sorted(found.cards, key=lambda card: card.uri))
    assert (big.width, big.height) == (SMALL_PX // 2, SMALL_PX)
    assert big.large is not None
    assert Image.open(io.BytesIO(base64.b64decode(big.large.partition(",")[2]))).size == (LARGE_PX // 2, LARGE_PX)
    assert ((tiny.width, tiny.height), tiny.large) == ((5, 4), None)


def test_a_shard_is_read_once_and_one_that_is_gone_costs_its_own_pictures_only(
    tmp_path: Path, members: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "xyz":
        write_tar(tmp_path / f"{name}.tar", members)
    store = publish(tmp_path, str(tmp_path / "*.tar"))
    (tmp_path / "y.tar").unlink()
    (tmp_path / "z.tar").write_bytes((tmp_path / "z.tar").read_bytes()[: 512 + len(image(0))])
    opened: list[str] = []

    def spy(source: Any, *rest: Any, **options: Any) -> Any:
        opened.append(source.uri)
        return read(source, *rest, **options)

    read = originals.read_shard
    monkeypatch.setattr(originals, "read_shard", spy)
    found = report(store)
    assert sorted(opened) == [str(tmp_path / f"{name}.tar") for name in "xyz"]
    assert len(found.cards) == 12
    for card in found.cards:
        picture = found.pictures[card.id]
        if card.uri.endswith("x.tar"):
            assert_shows(card, picture)
        else:
            assert (picture.small, picture.large) == (None, None)
            assert picture.reason.startswith("missing" if card.uri.endswith("y.tar") else "changed")


def test_failed_rows_have_their_reason_and_changed_ones_no_picture(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(image(number))
    (tmp_path / "broken.png").write_bytes(image(0)[:60])
    store = publish(tmp_path, str(tmp_path / "*.png"))
    (tmp_path / "1.png").write_bytes(image(8))
    (tmp_path / "2.png").write_bytes(b"<html>")
    found = report(store)
    by_name = {card.name: found.pictures[card.id] for card in found.cards}
    assert by_name["0.png"].small is not None
    assert by_name["1.png"].reason.startswith("changed: ")
    assert by_name["2.png"].reason.startswith("changed: ")
    assert by_name["broken.png"].small is None
    assert by_name["broken.png"].reason


def test_when_the_time_is_up_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(image(0))
    found = report(publish(tmp_path, str(tmp_path / "*.png")), budget_s=0.0)
    (card,) = found.cards
    assert found.pictures[card.id] == Picture(reason="not read: 0 s were over")


def test_schemes_that_are_not_allowed_are_not_asked(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(image(0))
    store = publish(tmp_path, str(tmp_path / "0.png"))
    (card,) = report(store).cards
    elsewhere = replace(card, id=card.id + (9 << 24), uri="http://10.0.0.1/a.png")
    found = read_pictures([elsewhere], store, NO_STORE, DecodeSpec())
    assert "store.allow_schemes" in found[elsewhere.id].reason


class _Parts:
    """A listing of an output's parts, as `relabel` lists them."""

    def __init__(self, uris: Sequence[str]) -> None:
        self._uris = uris

    def __iter__(self) -> Any:
        rows = [dict.fromkeys(SOURCE_SCHEMA.names) | {"uri": uri, "kind": "part"} for uri in self._uris]
        yield pa.RecordBatch.from_pylist(rows, SOURCE_SCHEMA)

    def covers(self, uri: str) -> bool:
        return False


def test_an_output_with_other_labels_leads_back_to_the_images(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [image(0)], other=[b"x"])
    publish(tmp_path, str(tmp_path / "p.parquet"), image_column="image")
    relabelled = open_store(str(tmp_path / "relabelled"), NO_STORE)
    output = Output(relabelled)
    source = SourceSpec(uris=(str(tmp_path / "out"),), format="output").model_dump(mode="json")
    work = output.begin(_Parts([str(tmp_path / "out" / "part")]), {"job": 1}, source)
    assert work.plan is not None
    assert work.lease is not None
    part = next((tmp_path / "out").glob("*.parquet"))
    table = pq.read_table(part).replace_schema_metadata(None)
    output.write_part(work.plan, table.append_column("source_total", pa.array([1], pa.int32())), {}, "r")
    output.publish(work.plan, "r")
    work.lease.end()
    found = report(relabelled)
    (card,) = found.cards
    assert_shows(card, found.pictures[card.id])
