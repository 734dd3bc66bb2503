import datetime
import io
import json
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.faultproxy import FaultProxy, Rule
from support.place import Place

from zsic.core.errors import SpecError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import JobSpec, StoreSpec, make_spec
from zsic.storage.objects import Objects
from zsic.storage.parquet import find_image_column
from zsic.storage.sample import End, Sample, Source
from zsic.storage.samples import read_samples

IMAGES = [b"image-%d" % number for number in range(10)]
HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def make_parquet(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def make_job(max_bytes: int = 1000, **source: Any) -> JobSpec:
    return make_spec(
        {
            "source": {"uris": ["unused"], **source},
            "labels": ["cat", "dog"],
            "output": "unused",
            "decode": {"max_bytes": max_bytes},
        }
    )


def read(uri: str, store: StoreSpec, job: JobSpec | None = None, skip: Iterable[int] = ()) -> tuple[list[Sample], int]:
    objects = Objects(store)
    info = objects.stat(uri)
    source = Source(uri, "parquet", info.size, info.etag, info.mtime_ns)
    skipped = set(skip)
    *samples, end = read_samples(source, objects, job or make_job(), skip=lambda index: index in skipped)
    assert isinstance(end, End)
    found = [sample for sample in samples if isinstance(sample, Sample)]
    assert [sample.index for sample in found] == [index for index in range(end.total) if index not in skipped]
    return found, end.total


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), HF_IMAGE])
def test_each_row_is_a_sample_named_by_its_number(place: Place, kind: pa.DataType) -> None:
    values = [{"bytes": image, "path": "x.jpg"} for image in IMAGES] if kind is HF_IMAGE else IMAGES
    data = make_parquet({"image": pa.array(values, kind), "text": ["t"] * 10}, row_group_size=3)
    samples, total = read(place.put("a.parquet", data), place.store)
    assert [(sample.key, sample.data, sample.columns) for sample in samples] == [
        (str(number), image, None) for number, image in enumerate(IMAGES)
    ]
    assert total == 10


def test_rows_without_an_image_and_large_ones_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = [{"bytes": b"x"}, None, {"bytes": None, "path": "x.jpg"}, {"bytes": b""}, {"bytes": bytes(11)}]
    path.write_bytes(make_parquet({"image": pa.array(values, HF_IMAGE)}))
    samples, _ = read(str(path), StoreSpec(), make_job(max_bytes=10))
    empty = Failure(Outcome.EMPTY, "the image is null")
    large = Failure(Outcome.TOO_LARGE, "11 bytes are more than decode.max_bytes (10)")
    assert [sample.data for sample in samples] == [b"x", None, None, b"", None]
    assert [sample.failure for sample in samples] == [None, empty, empty, None, large]


def test_kept_columns_travel_as_json_whatever_their_type(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "image": pa.array([b"1", b"2"], pa.binary()),
        "caption": pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\5\0\0\0"), pa.py_buffer(b"acaf\xe9")]
        ),
        "score": pa.array([0.5, None]),
        "tags": pa.array([["a", "b"], []]),
        "at": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), None]),
        "other": [1, 2],
    }
    path.write_bytes(make_parquet(columns))
    keep = ("caption", "score", "tags", "at", "json")
    samples, _ = read(str(path), StoreSpec(), make_job(keep_columns=keep))
    assert [json.loads(sample.columns or "") for sample in samples] == [
        {"caption": "a", "score": 0.5, "tags": ["a", "b"], "at": "2026-01-02 03:04:05+00:00"},
        {"caption": "caf\\xe9", "score": None, "tags": [], "at": None},
    ]


def test_skipped_rows_count_and_whole_groups_of_them_are_not_read(s3_place: Place, fault_proxy: FaultProxy) -> None:
    images = [bytes([number]) * 900 for number in range(8)]
    data = make_parquet({"image": images}, row_group_size=2, compression="none", use_dictionary=False)
    uri = s3_place.put("a.parquet", data)
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    samples, total = read(uri, store)
    n_requests = fault_proxy.count("^GET")
    fault_proxy.requests.clear()
    rest, same_total = read(uri, store, skip={0, 1, 2, 4, 5})
    assert rest == [sample for sample in samples if sample.index in (3, 6, 7)]
    assert same_total == total == 8
    assert fault_proxy.count("^GET") < n_requests


def test_a_damaged_file_gives_the_rows_before_and_one_in_place_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {"image": [bytes([number]) * 500 for number in range(6)]}
    data = bytearray(make_parquet(table, row_group_size=2, compression="snappy", use_dictionary=False))
    at = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(data)
    samples, total = read(str(path), StoreSpec())
    assert [sample.key for sample in samples] == ["0", "1", None]
    assert total == 3
    assert samples[-1].failure == Failure(Outcome.BAD_SHARD, "damaged Parquet file, from row 2 on")
    assert read(str(path), StoreSpec(), skip={0, 1})[0] == samples[2:]


@pytest.mark.parametrize("data", [b"no Parquet", b"PAR1" + bytes(100) + b"PAR1", make_parquet({"image": IMAGES})[:-9]])
def test_what_is_no_parquet_is_one_sample(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    [sample], total = read(str(tmp_path / "a.parquet"), StoreSpec())
    assert (sample.key, total) == (None, 1)
    assert sample.failure == Failure(Outcome.BAD_SHARD, "damaged Parquet file, from row 0 on")


@pytest.mark.parametrize("data", [b"", make_parquet({"image": pa.array([], pa.binary())})])
def test_a_file_without_rows_is_one_sample(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    [sample], total = read(str(tmp_path / "a.parquet"), StoreSpec())
    assert total == 1
    assert sample.failure == Failure(Outcome.EMPTY, "the file holds no rows")


def test_a_read_that_fails_keeps_its_own_reason(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uri = s3_place.put("a.parquet", make_parquet({"image": IMAGES}))
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    fault_proxy.rules = [Rule("^GET", "unavailable", after=1)]
    [sample], _ = read(uri, store)
    assert sample.failure == Failure(Outcome.UNREACHABLE, "the store answered 503 SlowDown (2 attempts)")
    fault_proxy.rules = [Rule("^GET", "truncate", 5, times=1), Rule("^GET", "unavailable", after=1, times=1)]
    assert [sample.data for sample in read(uri, store)[0]] == IMAGES


def test_a_file_replaced_since_it_was_listed_is_changed(place: Place) -> None:
    uri = place.put("a.parquet", make_parquet({"image": IMAGES}))
    listed = Objects(place.store).stat(uri)
    place.put("a.parquet", make_parquet({"image": [*IMAGES, b"one more"]}))
    source = Source(uri, "parquet", listed.size, listed.etag, listed.mtime_ns)
    sample, end = read_samples(source, Objects(place.store), make_job())
    assert isinstance(sample, Sample)
    assert sample.failure is not None
    assert sample.failure.outcome is Outcome.CHANGED
    assert end == End(1, sample.failure)


B = pa.binary()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": B, "text": pa.string()}, "a"),
        ({"photo_hf": HF_IMAGE, "mask": B}, "photo_hf"),
        ({"thumb": B, "image": B}, "image"),
        ({"mask": HF_IMAGE, "image": HF_IMAGE, "img": B}, "image"),
        ({"text": pa.string(), "n": pa.int64()}, None),
        ({"other": pa.struct([("path", pa.string())])}, None),
    ],
)
def test_the_image_column_is_found(columns: dict[str, pa.DataType], expected: str | None) -> None:
    assert find_image_column(pa.schema(columns), None, "f") == expected


def test_several_image_columns_are_the_users_choice() -> None:
    schema = pa.schema({"front": B, "back": B, "n": pa.int64()})
    with pytest.raises(SpecError) as caught:
        find_image_column(schema, None, "a.parquet")
    assert str(caught.value) == "source.image_column is not set, and a.parquet has several: 'front', 'back'"
    assert find_image_column(schema, "back", "a.parquet") == "back"
    with pytest.raises(SpecError, match=r"source.image_column: 'n' is not binary in f; 'front', 'back' could be one"):
        find_image_column(schema, "n", "f")
    with pytest.raises(SpecError, match=r"source.image_column: 'none' is not there in f"):
        find_image_column(schema, "none", "f")


# Files that lie


def footer(*, n_columns: int, n_said: int | None = None, n_groups: int = 0) -> bytes:
    """A file of nothing but a footer, written by hand in Thrift's compact form."""

    def varint(number: int) -> bytes:
        low, high = number & 127, number >> 7
        return bytes([low | 128]) + varint(high) if high else bytes([low])

    root = b"\x48\1s\x15" + varint(2 * n_columns) + b"\0"
    column = b"\x15\x0c\x25\0\x18\5image\0"
    group = b"\x19\x0c\x16\0\x16\2\0"
    schema = b"\x19\xfc" + varint((n_said or n_columns) + 1) + root + column * n_columns
    groups = b"\x19\xfc" + varint(n_groups) + group * n_groups
    body = b"\x15\2" + schema + b"\x16\0" + groups + b"\0"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


WHOLE = make_parquet({"image": IMAGES}, row_group_size=5, compression="none", use_dictionary=False)
FOOTER_BYTES = struct.unpack("<I", WHOLE[-8:-4])[0]


def with_rows(number: int) -> bytes:
    """A file whose first group says that it has other rows than its five."""
    places = [at for at in range(len(WHOLE) - FOOTER_BYTES - 8, len(WHOLE) - 8) if WHOLE[at : at + 2] == b"\x16\x0a"]
    for at in places:
        data = WHOLE[: at + 1] + bytes([2 * number]) + WHOLE[at + 2 :]
        try:
            if pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).num_rows == number:
                return data
        except (OSError, pa.ArrowException):
            continue
    raise AssertionError("no such field")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[:-1], id="cut by a byte"),
        pytest.param(WHOLE[: len(WHOLE) - FOOTER_BYTES // 2], id="cut within the footer"),
        pytest.param(WHOLE[:100], id="cut before the footer"),
        pytest.param(b"PARX" + WHOLE[4:-4] + b"PARX", id="wrong magic"),
        pytest.param(WHOLE[:-4] + b"PARE", id="encrypted footer"),
        pytest.param(WHOLE[:-8] + b"\xff\xff\xff\xff" + b"PAR1", id="footer of 4 GiB"),
        pytest.param(WHOLE[:-8] + bytes(4) + b"PAR1", id="footer of nothing"),
        pytest.param(footer(n_columns=1, n_said=2**31 - 2), id="footer of many columns that are not there"),
        pytest.param(footer(n_columns=500_000), id="footer of many columns"),
        pytest.param(footer(n_columns=1, n_groups=500_000), id="footer of many groups"),
        pytest.param(footer(n_columns=1, n_groups=1), id="group without columns"),
        pytest.param(with_rows(20), id="more rows than there are"),
        pytest.param(with_rows(3), id="fewer rows than there are"),
    ],
)
def test_a_file_that_lies_is_rows_and_one_in_place_of_the_rest(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    begun = time.process_time()
    *before, last = read(str(tmp_path / "a.parquet"), StoreSpec())[0]
    assert time.process_time() - begun < 5
    assert [sample.data for sample in before] == IMAGES[: len(before)]
    assert last.failure is not None
    assert last.failure.outcome is Outcome.BAD_SHARD
    for n_skipped in range(len(before) + 1):
        assert read(str(tmp_path / "a.parquet"), StoreSpec(), skip=range(n_skipped))[0] == [*before, last][n_skipped:]


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.list_(pa.binary()), pa.struct([("bytes", pa.string())])])
def test_a_file_of_other_columns_than_the_first_is_one_sample(kind: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(make_parquet({"image": pa.array([None], kind)}))
    [sample], _ = read(str(tmp_path / "a.parquet"), StoreSpec())
    assert sample.failure is not None
    assert sample.failure.outcome is Outcome.BAD_SHARD
    assert "column of images" in sample.failure.detail


def test_damaged_statistics_of_a_column_do_not_end_the_process(tmp_path: Path) -> None:
    # pyarrow 26 lets an exception of C++ escape where metadata of a column are looked at.
    from support.mutants import mutant

    (tmp_path / "a.parquet").write_bytes(mutant("parquet", 3847))
    job = make_job(keep_columns=("text", "n"))
    *_, last = read(str(tmp_path / "a.parquet"), StoreSpec(), job)[0]
    assert last.failure == Failure(Outcome.BAD_SHARD, "damaged Parquet file, from row 10 on")


def test_files_that_explode_take_no_memory(tmp_path: Path) -> None:
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([bytes(8 * 10**6)], pa.binary()))
    pq.write_table(pa.table({"image": same}), tmp_path / "dictionary.parquet", store_schema=False)
    pages = {"compression": "zstd", "use_dictionary": False, "data_page_size": 2**30, "write_statistics": False}
    pq.write_table(pa.table({"image": [bytes(8 * 10**6)] * 40}), tmp_path / "page.parquet", **pages)
    (tmp_path / "columns.parquet").write_bytes(footer(n_columns=900_000))
    (tmp_path / "groups.parquet").write_bytes(footer(n_columns=10, n_groups=900_000))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 25 * 2**20
    program = """
        import sys
        from pathlib import Path

        from zsic.core.spec import StoreSpec, make_spec
        from zsic.storage.objects import Objects
        from zsic.storage.sample import Source
        from zsic.storage.samples import read_samples

        def memory_mb(field):
            return int(Path("/proc/self/status").read_text().split(field)[1].split()[0]) // 1024

        job = make_spec({"source": "x", "labels": ["a", "b"], "output": "o", "decode": {"max_bytes": 10**6}})
        for path in sys.argv[1:]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
            before = memory_mb("VmRSS:")
            n = sum(1 for _ in read_samples(Source(path, "parquet"), Objects(StoreSpec()), job))
            print(Path(path).stem, n, memory_mb("VmHWM:") - before)
    """
    paths = sorted(map(str, tmp_path.glob("*.parquet")))
    command = [sys.executable, "-c", textwrap.dedent(program), *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown = {name: (int(n), int(mb)) for name, n, mb in map(str.split, done.stdout.splitlines())}
    assert {name: n for name, (n, _) in grown.items()} == {"columns": 2, "dictionary": 201, "groups": 2, "page": 2}
    # Believed, they take 5 GB (the dictionary) and hundreds of MB.
    assert max(mb for _, mb in grown.values()) < 150
