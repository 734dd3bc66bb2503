"""From rows back to the bytes that were classified."""

import gzip
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.place import DISK_FIRST, REAL_S3, Place
from support.published import publish, tar_of
from support.runs import draw, write_shard
from support.videos import make_video

from zsic.core.errors import SpecError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import StoreSpec
from zsic.storage.objects import Objects
from zsic.storage.originals import Originals, RowRef
from zsic.storage.store import Store, open_store


def parquet_of(images: list[bytes | None], column: str = "image", **others: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: images, **others}), buffer, row_group_size=3)
    return buffer.getvalue()


def read_back(store: Store, spec: StoreSpec, rows: list[dict[str, Any]], **limits: int) -> dict[int, bytes | Failure]:
    refs = [RowRef(row["id"], row["uri"], row["key"]) for row in rows]
    answers = list(Originals(store, Objects(spec), **limits).read(refs))
    assert [ref for ref, _ in answers] == refs
    return {ref.id: answer for ref, answer in answers}


def ok(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["outcome"] == "ok"]


on_disk_first = pytest.mark.parametrize("place", [*DISK_FIRST, REAL_S3], indirect=True)


@pytest.fixture
def lake(place: Place) -> Place:
    """Loose images, tars with a name that comes twice, and Parquet, in one folder."""
    for number in range(5):
        place.put(f"in/loose/{number}.jpg", draw(number))
    place.put("in/a.tar", tar_of(("x.jpg", draw(10)), ("x.jpg", draw(11)), ("x.txt", b"no"), ("y.png", draw(12))))
    place.put("in/b.tar.gz", gzip.compress(tar_of(*((f"{n}.jpg", draw(n)) for n in range(20, 24)))))
    place.put("in/c.parquet", parquet_of([draw(n) if n != 33 else None for n in range(30, 38)]))
    return place


def test_every_row_leads_back_to_its_bytes(lake: Place) -> None:
    store, rows = publish(lake.at("out"), lake.at("in"), store=lake.store)
    assert {row["key"] for row in rows} >= {None, "x.jpg", "x.jpg#2", "y.png", "23.jpg", "7"}
    assert len(ok(rows)) == 5 + 3 + 4 + 7
    answers = read_back(store, lake.store, ok(rows))
    assert answers == {row["id"]: row["data"] for row in ok(rows)}


def test_it_ends_when_nobody_waits_any_more(tmp_path: Path) -> None:
    write_shard(tmp_path / "in.tar", range(30))
    store, rows = publish(str(tmp_path / "out"), str(tmp_path / "in.tar"))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 10

    last = RowRef(rows[-1]["id"], rows[-1]["uri"], rows[-1]["key"])
    assert list(Originals(store, Objects(StoreSpec())).read([last], stop)) == []
    assert len(asked) == 11
    assert [row for row, _ in Originals(store, Objects(StoreSpec())).read([last])] == [last]


@on_disk_first
def test_any_choice_of_rows_will_do(lake: Place) -> None:
    store, rows = publish(lake.at("out"), lake.at("in"), store=lake.store)
    for start in range(4):
        chosen = ok(rows)[start::4]
        assert read_back(store, lake.store, chosen, sources_at_once=2) == {row["id"]: row["data"] for row in chosen}


@on_disk_first
def test_a_row_that_failed_gives_its_reason(lake: Place) -> None:
    store, rows = publish(lake.at("out"), lake.at("in"), store=lake.store)
    (null,) = (row for row in rows if row["outcome"] != "ok")
    (answer,) = read_back(store, lake.store, [null]).values()
    assert isinstance(answer, Failure)
    assert answer.outcome == null["outcome"] == Outcome.EMPTY


def test_a_shard_is_read_once_and_only_to_the_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "s.tar"
    path.write_bytes(tar_of(*((f"{n}.jpg", bytes([n]) * 2**20) for n in range(80))))
    store, rows = publish(str(tmp_path / "out"), str(tmp_path / "in"))
    read: list[int] = []

    def count(self: Objects, uri: str, **options: Any) -> bytes:
        data = original(self, uri, **options)
        read.append(len(data))
        return data

    original = Objects.read
    monkeypatch.setattr(Objects, "read", count)
    read_back(store, StoreSpec(), rows[::10])
    assert 71 * 2**20 <= sum(read) <= path.stat().st_size
    read.clear()
    read_back(store, StoreSpec(), rows[:1])
    # One range, and what was fetched ahead meanwhile.
    assert sum(read) <= 6 * 8 * 2**20


def test_what_has_gone_or_changed_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(draw(1))
    for name in ("s.tar", "t.tar", "u.tar"):
        write_shard(folder / name, range(4))
    store, rows = publish(str(tmp_path / "out"), str(folder))
    (folder / "a.jpg").unlink()
    (folder / "b.jpg").write_bytes(draw(2))
    (folder / "s.tar").unlink()
    write_shard(folder / "t.tar", range(3))
    answers = read_back(store, StoreSpec(), rows)
    by_name: dict[str, list[str]] = {}
    for row in rows:
        answer = answers[row["id"]]
        told = str(answer.outcome) if isinstance(answer, Failure) else "ok"
        by_name.setdefault(Path(row["uri"]).name, []).append(told)
    assert by_name == {
        "a.jpg": ["missing"],
        "b.jpg": ["changed"],
        "c.jpg": ["ok"],
        "s.tar": ["missing"] * 4,
        "t.tar": ["changed"] * 4,
        "u.tar": ["ok"] * 4,
    }


def test_what_was_taken_up_again_counts_as_the_later_version(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(draw(1))
    write_shard(folder / "s.tar", range(4))
    publish(str(tmp_path / "out"), str(folder))
    (folder / "a.jpg").write_bytes(draw(2))
    write_shard(folder / "s.tar", range(10, 16))
    (folder / "new.jpg").write_bytes(draw(3))
    store, rows = publish(str(tmp_path / "out"), str(folder))
    assert len(rows) == 8
    assert read_back(store, StoreSpec(), rows) == {row["id"]: row["data"] for row in rows}


def test_the_column_of_images_is_the_one_that_was_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    masks = [b"mask"] * 4
    (folder / "p.parquet").write_bytes(parquet_of([draw(n) for n in range(4)], "picture", image=masks))
    store, rows = publish(str(tmp_path / "out"), str(folder), image_column="picture")
    assert read_back(store, StoreSpec(), rows) == {row["id"]: row["data"] for row in rows}
    assert rows[0]["data"] == draw(0)


@pytest.mark.parametrize("name", ["shard.bin", "shard.tar"])
def test_without_a_plan_the_uri_and_the_key_tell(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(tar_of(("x.jpg", draw(1)), ("x.jpg", draw(2))))
    (tmp_path / "x.jpg").write_bytes(draw(3))
    (tmp_path / "p.bin").write_bytes(parquet_of([draw(4), draw(5)]))
    store = open_store(str(tmp_path / "out"), StoreSpec())
    refs = [
        RowRef(0, str(tmp_path / name), "x.jpg"),
        RowRef(1, str(tmp_path / name), "x.jpg#2"),
        RowRef(1 << 24, str(tmp_path / "x.jpg"), None),
        RowRef((2 << 24) + 1, str(tmp_path / "p.bin"), "1"),
    ]
    answers = [answer for _, answer in Originals(store, Objects(StoreSpec())).read(refs)]
    assert answers == [draw(1), draw(2), draw(3), draw(5)]


def test_another_member_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of(("x.jpg", draw(1)), ("y.jpg", draw(2))))
    refs = [RowRef(0, str(path), "x.jpg"), RowRef(1, str(path), "z.jpg"), RowRef(2, str(path), "more.jpg")]
    answers = [
        answer
        for _, answer in Originals(open_store(str(tmp_path / "out"), StoreSpec()), Objects(StoreSpec())).read(refs)
    ]
    assert answers[0] == draw(1)
    assert [answer.outcome for answer in answers[1:] if isinstance(answer, Failure)] == [Outcome.CHANGED] * 2


def test_a_scheme_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    refs = [RowRef(0, "ftp://host/x.jpg", None)]
    with pytest.raises(SpecError, match=r"store\.allow_schemes"):
        list(Originals(open_store(str(tmp_path), StoreSpec()), Objects(StoreSpec())).read(refs))


def test_a_name_that_is_no_text_leads_back_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.jpg"), "wb") as file:
        file.write(draw(1))
    store, rows = publish(str(tmp_path / "out"), str(folder))
    assert read_back(store, StoreSpec(), rows) == {rows[0]["id"]: draw(1)}


@on_disk_first
def test_a_frame_is_found_by_its_time(lake: Place) -> None:
    lake.put("in/d.mp4", make_video("mp4", 20, noise=True))
    store, rows = publish(lake.at("out"), lake.at("in"), store=lake.store, fps=2)
    frames = [row for row in ok(rows) if row["uri"].endswith("d.mp4")]
    assert [row["key"] for row in frames] == ["00:00:00.000", "00:00:00.500", "00:00:01.000", "00:00:01.500"]
    for chosen in (frames, frames[2:3], ok(rows)):
        assert read_back(store, lake.store, chosen) == {row["id"]: row["data"] for row in chosen}
    unknown = [{**frames[1], "id": 99 << 24 | 1}]  # no plan tells of it
    assert read_back(store, lake.store, unknown) == {99 << 24 | 1: frames[1]["data"]}
