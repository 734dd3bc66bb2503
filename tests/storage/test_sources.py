import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.faultproxy import FaultProxy, Rule
from support.place import Place

from zsic.core.errors import SourceError, SpecError
from zsic.core.outcome import Outcome
from zsic.core.spec import SourceSpec, StoreSpec
from zsic.storage.access import ReadError
from zsic.storage.objects import Objects
from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.sources import list_sources

TAR = bytes(1024)


def list_rows(store: StoreSpec, *uris: str, **source: Any) -> list[dict[str, Any]]:
    batches = list(list_sources(SourceSpec(uris=uris, **source), Objects(store)))
    assert all(batch.schema == SOURCE_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def list_kinds(place: Place, *patterns: str, **source: Any) -> dict[str, str]:
    """Names below the place, and their kinds; each must come once."""
    rows = list_rows(place.store, *(place.at(pattern) for pattern in patterns), **source)
    names = [row["uri"].removeprefix(place.at("")) for row in rows]
    assert len(set(names)) == len(names)
    return dict(zip(names, (row["kind"] for row in rows), strict=True))


def make_parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


# Folders


def test_a_folder_gives_every_file_that_could_be_an_image_and_every_shard(place: Place) -> None:
    for name in ("a.jpg", "b", "c.HTML", "d.bin", "sub/e.tar", "sub/deep/f.TGZ", "_DSC1.JPG", "empty.png"):
        place.put(f"p/{name}", b"" if name == "empty.png" else b"x")
    place.put("p/g.parquet", make_parquet({"image": [b"x"]}))
    for name in ("a.txt", "a.json", "metadata.csv", "m.jsonl", ".hidden.jpg", ".git/x.jpg", "_SUCCESS", "_tmp/y.jpg"):
        place.put(f"p/{name}")
    place.put("q.jpg")
    assert list_kinds(place, "p") == {
        "p/_DSC1.JPG": "image",
        "p/a.jpg": "image",
        "p/b": "image",
        "p/c.HTML": "image",
        "p/d.bin": "image",
        "p/empty.png": "image",
        "p/g.parquet": "parquet",
        "p/sub/deep/f.TGZ": "tar",
        "p/sub/e.tar": "tar",
    }
    assert list_kinds(place, "p/") == list_kinds(place, "p")


def test_rows_say_which_version_was_listed(place: Place) -> None:
    uri = place.put("p/a.jpg", b"12345")
    [row] = list_rows(place.store, place.at("p"))
    info = Objects(place.store).stat(uri)
    assert row == {
        "uri": uri,
        "kind": "image",
        "size": 5,
        "etag": info.etag,
        "mtime_ns": info.mtime_ns,
        "columns": None,
    }
    assert (info.etag is None) == (place.s3 is None)


def test_a_format_picks_from_a_folder_and_decides_for_what_is_named(place: Place) -> None:
    for name in ("a.jpg", "b.tar", "c.txt", "d.csv"):
        place.put(f"p/{name}", b"uri\nx.jpg\n" if name == "d.csv" else b"x")
    place.put("p/e.parquet", make_parquet({"image": [b"x"]}))
    assert list_kinds(place, "p", format="images") == {"p/a.jpg": "image"}
    assert list_kinds(place, "p", format="tar") == {"p/b.tar": "tar"}
    assert list_kinds(place, "p", format="parquet") == {"p/e.parquet": "parquet"}
    assert list_kinds(place, "p/c.txt", format="tar") == {"p/c.txt": "tar"}
    assert list_kinds(place, "p/c.txt") == {"p/c.txt": "image"}
    assert list_kinds(place, "p/b.tar", format="images") == {"p/b.tar": "image"}


def test_the_markers_of_folders_are_no_images(s3_place: Place) -> None:
    s3_place.put("p/", b"")
    s3_place.put("p/sub/", b"")
    s3_place.put("p/sub/a.jpg")
    s3_place.put("q", b"")
    s3_place.put("q/b.jpg")
    assert list_kinds(s3_place, "p", "q") == {"p/sub/a.jpg": "image", "q/b.jpg": "image"}


def test_a_whole_bucket_is_a_folder(s3_place: Place) -> None:
    s3_place.put("a.jpg")
    s3_place.put("b/c.jpg")
    for uri in (s3_place.uri, s3_place.uri + "/"):
        assert [row["uri"] for row in list_rows(s3_place.store, uri)] == [s3_place.at("a.jpg"), s3_place.at("b/c.jpg")]


def test_how_keys_begin_is_a_source_where_nothing_has_that_name(s3_place: Place) -> None:
    for name in ("p/2024-01.jpg", "p/2024-02.jpg", "p/2025-01.jpg", "p/2024/a.jpg"):
        s3_place.put(name)
    assert list(list_kinds(s3_place, "p/2024-")) == ["p/2024-01.jpg", "p/2024-02.jpg"]
    assert list(list_kinds(s3_place, "p/2024")) == ["p/2024/a.jpg"]


# Globs and braces


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.jpg", ["p/a1.jpg", "p/b1.jpg"]),
        ("p/?1.jpg", ["p/a1.jpg", "p/b1.jpg"]),
        ("p/[!a]1.jpg", ["p/b1.jpg"]),
        ("p/[a-b]1.*", ["p/a1.jpg", "p/b1.jpg"]),
        ("p/*/*.jpg", ["p/sub/c.jpg"]),
        ("p/**/*.jpg", ["p/a1.jpg", "p/b1.jpg", "p/sub/c.jpg", "p/sub/deep/d.jpg"]),
        ("p/**", ["p/a1.jpg", "p/b1.jpg", "p/sub/c.jpg", "p/sub/deep/d.jpg", "p/sub/e.tar"]),
        ("*/a1.jpg", ["p/a1.jpg"]),
        ("p/{a,b}1.jpg", ["p/a1.jpg", "p/b1.jpg"]),
        ("p/{sub/{c,deep/*},b?}.jpg", ["p/sub/c.jpg", "p/sub/deep/d.jpg", "p/b1.jpg"]),
        ("p/.*", ["p/.h.jpg"]),
        ("p/a1.txt*", ["p/a1.txt.png"]),
        ("p/*.txt", ["p/a1.txt"]),
    ],
)
def test_patterns(place: Place, pattern: str, expected: list[str]) -> None:
    names = ("a1.jpg", "b1.jpg", "a1.txt", "sub/c.jpg", "sub/deep/d.jpg", "sub/e.tar", ".h.jpg")
    for name in (*names, "a1.txt.png") if ".txt*" in pattern else names:
        place.put(f"p/{name}")
    assert list(list_kinds(place, pattern)) == expected


def test_a_name_that_looks_like_a_pattern_is_itself_first(place: Place) -> None:
    for name in ("p/[ab].jpg", "p/a.jpg", "p/{1,2}.jpg", "p/1.jpg", "p [x]/q.jpg"):
        place.put(name)
    assert list(list_kinds(place, "p/[ab].jpg")) == ["p/[ab].jpg"]
    assert list(list_kinds(place, "p/{1,2}.jpg")) == ["p/{1,2}.jpg"]
    assert list(list_kinds(place, "p [x]")) == ["p [x]/q.jpg"]


def test_a_range_of_shards_keeps_its_order_and_must_be_whole(place: Place) -> None:
    for number in range(12):
        place.put(f"p/s-{number:03d}.tar", TAR)
    assert list(list_kinds(place, "p/s-{003..011}.tar")) == [f"p/s-{number:03d}.tar" for number in range(3, 12)]
    place.delete("p/s-007.tar")
    with pytest.raises(SourceError, match=r"p/s-007\.tar' matches nothing"):
        list_kinds(place, "p/s-{003..011}.tar")


def test_a_shallow_pattern_does_not_walk_what_lies_deeper(s3_place: Place, fault_proxy: FaultProxy) -> None:
    s3_place.put("p/a.jpg")
    for number in range(5):
        s3_place.put(f"p/sub/{number}.jpg")
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    assert [row["uri"] for row in list_rows(store, s3_place.at("p/*.jpg"))] == [s3_place.at("p/a.jpg")]
    assert any("delimiter=%2F" in line and "prefix=p%2F" in line for line in fault_proxy.requests)


# Several at once


def test_what_an_earlier_source_covers_comes_once(place: Place) -> None:
    for name in ("p/a.jpg", "p/b.jpg", "p/sub/c.jpg", "p/n.txt", "q/d.jpg"):
        place.put(name)
    assert list(list_kinds(place, "p/sub", "p", "p/*.jpg", "p/a.jpg", "p/n.txt", "p")) == [
        "p/sub/c.jpg",
        "p/a.jpg",
        "p/b.jpg",
        "p/n.txt",
    ]
    assert list(list_kinds(place, "p/{a,b}*.jpg", "p/b.jpg", "{p/sub,p}", "p")) == [
        "p/a.jpg",
        "p/b.jpg",
        "p/sub/c.jpg",
    ]
    assert list(list_kinds(place, "p/{b,a}.jpg", "p/a.jpg", "p")) == ["p/b.jpg", "p/a.jpg", "p/sub/c.jpg"]


@pytest.mark.parametrize("pattern", ["none", "none/*.jpg", "p/*.png", "p/s-{0..3}.tar", "none.jpg"])
def test_a_source_that_matches_nothing_is_an_error_that_names_it(place: Place, pattern: str) -> None:
    place.put("p/a.jpg")
    with pytest.raises(SourceError) as caught:
        list_kinds(place, "p", pattern)
    assert "none" in str(caught.value) or "p/" in str(caught.value)


def test_a_folder_of_companions_is_an_error_that_says_so(place: Place) -> None:
    place.put("p/a.txt")
    place.put("p/.b.jpg")
    with pytest.raises(SourceError, match=r"/p' holds 2 objects and no source of format 'auto'"):
        list_kinds(place, "p")


def test_batches_are_bounded(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.jpg").touch()
    batches = list_sources(SourceSpec(uris=(str(tmp_path),)), Objects(StoreSpec()), batch_rows=4)
    assert [batch.num_rows for batch in batches] == [4, 4, 1]


def test_a_relative_path_and_a_file_url_are_rows_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spelled in ("a.jpg", "./*.jpg", ".", tmp_path.as_uri(), f"file://{tmp_path}/*.jpg", "~/a.jpg"):
        assert [row["uri"] for row in list_rows(StoreSpec(), spelled)] == [str(tmp_path / "a.jpg")]


def test_names_that_are_no_utf8_are_rows(tmp_path: Path) -> None:
    with open(bytes(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    for spelled in (str(tmp_path), f"{tmp_path}/*.jpg"):
        assert [row["uri"] for row in list_rows(StoreSpec(), spelled)] == [f"file://{tmp_path}/caf%E9.jpg"]


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    for spelled in ("s3://KEY:CANARY@bucket/p", "gs://CANARY@bucket/p", "file://me:CANARY@host/p"):
        source = SourceSpec.model_construct(**{**dict(SourceSpec(uris=("unused",))), "uris": (spelled,)})
        with pytest.raises(SpecError, match=r"holds credentials") as caught:
            list(list_sources(source, Objects(StoreSpec(allow_schemes=("file", "s3", "gs")))))
        assert "CANARY" not in str(caught.value)


def test_a_scheme_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(SpecError, match=r"store\.allow_schemes is file, s3; 'http://h/a.jpg' needs http"):
        list_rows(StoreSpec(), "http://h/a.jpg")


def test_without_the_right_to_list_nothing_is_guessed(s3_place: Place, fault_proxy: FaultProxy) -> None:
    s3_place.put("p/a.jpg")
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    fault_proxy.rules = [Rule("list-type=2", "error", 403, "AccessDenied")]
    with pytest.raises(SourceError, match=r"403 AccessDenied"):
        list_rows(store, s3_place.at("p"))


def test_an_unreachable_store_is_an_error(s3_place: Place, fault_proxy: FaultProxy) -> None:
    fault_proxy.rules = [Rule(".", "unavailable")]
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    with pytest.raises(SourceError, match=r"p cannot be read: the store answered 503 \(2 attempts\)"):
        list_rows(store, s3_place.at("p"))


# Manifests


def manifest_of(name: str, rows: list[dict[str, Any]]) -> bytes:
    if name.endswith(".parquet"):
        return make_parquet({key: [row.get(key) for row in rows] for key in rows[0]})
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    header = list(rows[0])
    lines = [",".join(header), *(",".join('"' + str(row[key]) + '"' for key in header) for row in rows)]
    return ("\ufeff" + "\r\n".join(lines)).encode()


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_a_manifest_lists_images_with_their_columns(place: Place, name: str) -> None:
    rows = [
        {"n": "1", "uri": "images/a.jpg", "text": "two\nlines, é"},
        {"n": "2", "uri": "../b.jpg", "text": ""},
        {"n": "3", "uri": place.at("c.jpg"), "text": "x"},
        {"n": "4", "uri": "images/a.jpg", "text": "again"},
        {"n": "5", "uri": "gone.jpg", "text": "y"},
    ]
    for image in ("p/images/a.jpg", "b.jpg", "c.jpg"):
        place.put(image)
    uri = place.put(f"p/{name}", manifest_of(name, rows))
    found = list_rows(place.store, uri, keep_columns=("text", "n"))
    assert [row["uri"] for row in found] == [
        place.at(image) for image in ("p/images/a.jpg", "b.jpg", "c.jpg", "p/images/a.jpg", "p/gone.jpg")
    ]
    assert {row["kind"] for row in found} == {"image"}
    assert [json.loads(row["columns"]) for row in found] == [{"text": row["text"], "n": row["n"]} for row in rows]
    assert [row["size"] for row in found] == ([1, 1, 1, 1, None] if place.s3 is None else [None] * 5)


def test_a_manifest_is_read_in_order_with_another_column_and_without_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image_url,other\n" + "".join(f"{number}.jpg,x\n" for number in range(25_000)))
    batches = list(list_sources(SourceSpec(uris=(str(path),), uri_column="image_url"), Objects(StoreSpec())))
    assert [batch.num_rows for batch in batches] == [10_000, 10_000, 5_000]
    assert batches[2]["uri"][0].as_py() == str(tmp_path / "20000.jpg")
    assert batches[0]["columns"].null_count == 10_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.csv", b"url\na.jpg\n", "source.uri_column: .*m.csv has no column 'uri'; it has 'url'"),
        ("m.csv", b"uri,x\n,1\n", "row 1 has no uri; got ''"),
        ("m.csv", b"uri\na.jpg\n\xff\xfe\n", "m.csv: damaged after row"),
        ("m.csv", b'uri\n"a.jpg\n', "m.csv: damaged after row 0"),
        ("m.csv", b"uri\n", "m.csv is a manifest without rows"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"uri": 5}\n', "row 2 has no uri; got 5"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"uri"', "m.jsonl: damaged after row 1"),
        ("m.jsonl", b"[1]\n", "each line is a JSON object"),
        ("m.jsonl", b'{"uri": "http://h/a.jpg"}\n', "store.allow_schemes is file, s3"),
        ("m.jsonl", b'{"uri": "s3://k:s@b/a.jpg"}\n', "holds credentials"),
        ("m.jsonl", b'{"uri": "s3:///a.jpg"}\n', "names no bucket; write s3://BUCKET/KEY"),
        ("m.jsonl", b'{"uri": "\\ud800.jpg"}\n', "m.jsonl: damaged after row 1"),
        ("m.parquet", make_parquet({"url": ["a.jpg"]}), "has neither a column of image bytes"),
    ],
)
def test_a_wrong_manifest_is_an_error_that_says_where(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((SourceError, SpecError), match=words):
        list_rows(StoreSpec(), str(tmp_path / name))


LOCAL = r"row 1 names '.*', a file of the machine that reads; .* store.remote_manifests_name_files is set"


@pytest.mark.parametrize("uri", ["file:///etc/hostname", "/etc/hostname", "FILE://localhost/etc/hostname"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_a_manifest_in_a_store_names_no_local_file_unless_it_is_allowed(s3_place: Place, uri: str, name: str) -> None:
    manifest = s3_place.put(name, manifest_of(name, [{"uri": uri}]))
    with pytest.raises(SpecError, match=LOCAL) as caught:
        list_rows(s3_place.store, manifest)
    assert manifest in str(caught.value)
    allowed = s3_place.store.model_copy(update={"remote_manifests_name_files": True})
    assert [row["uri"] for row in list_rows(allowed, manifest)] == ["/etc/hostname"]


def test_what_a_manifest_in_a_store_spells_relatively_stays_there(s3_place: Place) -> None:
    climbing = s3_place.put("lists/m.jsonl", b'{"uri": "../../../etc/hostname"}')
    with pytest.raises(SpecError, match=rf"{climbing}: row 1: .* leads out of {s3_place.uri}"):
        list_rows(s3_place.store, climbing)
    entries = ["../a.jpg", "file:/etc/hostname", "~/a.jpg", "x/../../../../a.jpg", "//a.jpg"[2:]]
    manifest = s3_place.put("lists/n.jsonl", manifest_of("n.jsonl", [{"uri": entry} for entry in entries]))
    assert [row["uri"] for row in list_rows(s3_place.store, manifest)] == [
        s3_place.at(key)
        for key in ("a.jpg", "lists/file:/etc/hostname", "lists/~/a.jpg", "lists/x/../../../../a.jpg", "lists/a.jpg")
    ]


def test_a_local_manifest_may_climb(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "m.csv").write_text("uri\n../a.jpg\n")
    assert [row["uri"] for row in list_rows(StoreSpec(), str(tmp_path / "lists" / "m.csv"))] == [
        str(tmp_path / "a.jpg")
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://host/a.jpg",
        "ftp://host/a.jpg",
        "memory://a.jpg",
        "local:///etc/hostname",
        "github://org:repo@main/a.jpg",
        "data:image/png;base64,iVBORw0KGgo=",
        "simplecache::s3://bucket/a.jpg",
        "zip://a.jpg::file:///a.zip",
        "filecache::file:///etc/hostname",
        "reference::s3://bucket/a.json",
    ],
)
def test_a_manifest_names_no_other_scheme(place: Place, uri: str) -> None:
    manifest = place.put("m.jsonl", manifest_of("m.jsonl", [{"uri": "a.jpg"}, {"uri": uri}]))
    with pytest.raises(SpecError, match=r"m\.jsonl: row 2") as caught:
        list_rows(place.store, manifest)
    assert any(words in str(caught.value) for words in ("needs", "neither a path nor", "credentials"))


def test_odd_entries_of_a_manifest_are_rows_with_an_outcome(place: Place) -> None:
    entries = ["nul\0.jpg", "line\nfeed.jpg", "\x1b[2J.jpg", "\u202egpj.jpg", "n" * 3000, "a/" * 2000, "=cmd|x", "%2F"]
    manifest = place.put("m.jsonl", manifest_of("m.jsonl", [{"uri": entry} for entry in entries]))
    rows = list_rows(place.store, manifest)
    assert [row["uri"] for row in rows] == [
        place.at(entry.rstrip("/") if place.s3 is None else entry) for entry in entries
    ]
    objects = Objects(place.store)
    for row in rows:
        with pytest.raises(ReadError) as caught:
            objects.read(row["uri"], max_bytes=9)
        assert caught.value.failure.outcome is Outcome.MISSING, row["uri"][:80]


def test_an_entry_too_long_to_be_one_is_told_by_its_row(place: Place) -> None:
    manifest = place.put("m.jsonl", manifest_of("m.jsonl", [{"uri": "a.jpg"}, {"uri": "n" * 10**6}]))
    with pytest.raises(SourceError, match=r"m\.jsonl: row 2 has a uri of 1000000 characters; drop it"):
        list_rows(place.store, manifest)


@pytest.mark.parametrize("line", [b'{"uri": ' + b"[" * 100_000, b'{"uri": ' + b"9" * 10_000 + b"}", b"\xff", b"{" * 9])
def test_hostile_lines_are_told_by_their_row(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"uri": "a.jpg"}\n' + line + b"\n")
    with pytest.raises(SourceError, match=r"m\.jsonl: damaged after row 1"):
        list_rows(StoreSpec(), str(tmp_path / "m.jsonl"))


def test_a_manifest_that_explodes_keeps_its_rows_and_drops_what_is_too_much(tmp_path: Path) -> None:
    # 300 rows of 2 MB each, in a few kilobytes.
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * 2 * 10**6])
    pq.write_table(pa.table({"uri": ["a.jpg"] * 300, "text": text}), tmp_path / "m.parquet", compression="zstd")
    rows = list_sources(SourceSpec(uris=(str(tmp_path / "m.parquet"),), keep_columns=("text",)), Objects(StoreSpec()))
    assert [batch.column("columns").null_count for batch in rows] == [300]


def test_a_column_to_keep_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,text\na.jpg,x\n")
    (tmp_path / "a.parquet").write_bytes(make_parquet({"image": [b"x"], "text": ["y"]}))
    for name, have in (("m.csv", "'uri', 'text'"), ("a.parquet", "'image', 'text'")):
        with pytest.raises(SpecError, match=rf"source.keep_columns: .*{name} has no column 'txet'; it has {have}"):
            list_rows(StoreSpec(), str(tmp_path / name), keep_columns=("txet",))
        assert list_rows(StoreSpec(), str(tmp_path / name), keep_columns=("text", "json"))


def test_text_that_no_table_holds_costs_no_row(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"uri": "a.jpg", "text": "\\ud800!"}\n')
    [row] = list_rows(StoreSpec(), str(tmp_path / "m.jsonl"), keep_columns=("text",))
    assert row["columns"] == '{"text": "?!"}'


def test_a_glob_of_manifests(place: Place) -> None:
    for number in range(3):
        place.put(f"p/{number}.csv", b"uri\n%d.jpg\n" % number)
    expected = [f"p/{number}.jpg" for number in range(3)]
    assert list(list_kinds(place, "p/*.csv")) == expected
    assert list(list_kinds(place, "p/*", format="manifest")) == expected
    assert list(list_kinds(place, "p", format="manifest")) == expected


def test_a_manifest_is_found_in_parquet_by_its_columns_or_by_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(make_parquet({"uri": ["1.jpg", "2.jpg"], "thumb": [b"x", b"y"]}))
    assert [row["kind"] for row in list_rows(StoreSpec(), str(tmp_path))] == ["parquet"]
    rows = list_rows(StoreSpec(), str(tmp_path), format="manifest")
    assert [row["uri"] for row in rows] == [str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")]


def test_a_damaged_parquet_file_is_a_source_for_its_row_will_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "b.parquet").write_bytes(make_parquet({"image": [b"x"]}))
    assert [row["kind"] for row in list_rows(StoreSpec(), str(tmp_path))] == ["parquet", "parquet"]


def test_two_image_columns_are_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(make_parquet({"front": [b"x"], "back": [b"y"]}))
    with pytest.raises(SpecError, match=r"source.image_column is not set"):
        list_rows(StoreSpec(), str(tmp_path))
    assert list_rows(StoreSpec(), str(tmp_path), image_column="back")
    with pytest.raises(SpecError, match=r"source.image_column: 'none' is not there"):
        list_rows(StoreSpec(), str(tmp_path), image_column="none")


def test_real_shards_are_listed_by_their_ending(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w"):
        pass
    [row] = list_rows(StoreSpec(), str(tmp_path / "*.tar"))
    assert row["kind"] == "tar"


def test_the_jobs_own_output_is_no_source_of_it(place: Place) -> None:
    for name in ("a.jpg", "out/part-1.parquet", "out/_zsic/job.json", "out/thumb.jpg", "outside.jpg"):
        place.put(name)
    batches = list_sources(SourceSpec(uris=(place.uri,)), Objects(place.store), excluding=place.at("out"))
    names = [row["uri"].removeprefix(place.at("")) for batch in batches for row in batch.to_pylist()]
    assert names == ["a.jpg", "outside.jpg"]
    with pytest.raises(SourceError):
        list(list_sources(SourceSpec(uris=(place.at("out"),)), Objects(place.store), excluding=place.at("out")))
