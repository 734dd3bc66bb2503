import gzip
import io
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faultproxy import FaultProxy, Rule
from support.place import Place

from zsic.core.outcome import Outcome
from zsic.core.spec import JobSpec, StoreSpec, make_spec
from zsic.storage.objects import CHUNK_BYTES, Objects
from zsic.storage.sample import End, Sample, Source
from zsic.storage.samples import read_samples
from zsic.storage.shard import GROUP_BYTES, read_shard

JPEG = b"\xff\xd8\xff\xe0 not all of a JPEG"
PHOTOS = [(f"{number:03d}.jpg", JPEG + bytes([number]) * 700) for number in range(6)]


def make_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_job(*keep: str, **fields: Any) -> JobSpec:
    source = {"uris": ["unused"], "keep_columns": keep}
    return make_spec({"source": source, "labels": ["cat", "dog"], "output": "unused", **fields})


def read(
    uri: str,
    store: StoreSpec | None = None,
    job: JobSpec | None = None,
    skip: Iterable[int] = (),
    *,
    range_bytes: int = CHUNK_BYTES,
    group_bytes: int = GROUP_BYTES,
) -> tuple[list[Sample], int]:
    """All samples, and the number that the end tells; checks what holds for every reader."""
    objects = Objects(store or StoreSpec(), chunk_bytes=range_bytes, whole_bytes=range_bytes)
    job = job or make_job()
    info = objects.stat(uri)
    source = Source(uri, "tar", info.size, info.etag, info.mtime_ns)
    skipped = set(skip)
    *samples, end = read_shard(
        source,
        objects,
        job.source,
        max_bytes=job.decode.max_bytes,
        skip=lambda index: index in skipped,
        group_bytes=group_bytes,
    )
    assert isinstance(end, End)
    found = [sample for sample in samples if isinstance(sample, Sample)]
    assert len(found) == len(samples)
    assert [sample.index for sample in found] == [index for index in range(end.total) if index not in skipped]
    keys = [sample.key for sample in found if sample.key is not None]
    assert len(set(keys)) == len(keys)
    assert all((sample.data is None) == (sample.failure is not None) for sample in found)
    return found, end.total


def read_bytes(
    data: bytes, folder: Path, job: JobSpec | None = None, skip: Iterable[int] = (), *, group_bytes: int = GROUP_BYTES
) -> list[Sample]:
    path = folder / "shard.tar"
    path.write_bytes(data)
    return read(str(path), job=job, skip=skip, group_bytes=group_bytes)[0]


def keys(samples: list[Sample]) -> list[str | None]:
    return [sample.key for sample in samples]


def test_every_image_is_a_sample_in_the_order_of_the_archive(place: Place) -> None:
    samples, total = read(place.put("shard.tar", make_tar(PHOTOS)), place.store)
    assert [(sample.key, sample.data) for sample in samples] == PHOTOS
    assert total == len(PHOTOS)


def test_images_are_what_the_ending_promises_or_the_bytes_begin_like(tmp_path: Path) -> None:
    members = [
        ("a/1.JPG", b"no image at all"),
        ("a/1.txt", b"BMW on the road"),
        ("a/1.json", b'{"a": 1}'),
        ("a/1.cls", b"7"),
        ("a/2.front.png", b""),
        ("a/2.back.webp", b"x"),
        ("noending", b"\x89PNG\r\n\x1a\n..."),
        ("3.image", b"RIFF\0\0\0\0WEBPVP8 "),
        ("4.bin", b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(30)),
        ("5.npy", b"\x93NUMPY"),
        ("6.heic", b"????ftypheic"),
    ]
    expected = ["a/1.JPG", "a/2.front.png", "a/2.back.webp", "noending", "3.image", "4.bin", "6.heic"]
    samples = read_bytes(make_tar(members), tmp_path)
    assert keys(samples) == expected
    assert [sample.data for sample in samples] == [dict(members)[name] for name in expected]


def test_keys_are_distinct_even_where_names_are_not(tmp_path: Path) -> None:
    names = ["x.jpg", "x.jpg", "x.jpg#2", "y.jpg", "x.jpg", "x.jpg", "/abs.jpg", "../../up.jpg", "tab\t\n\x1b[1m.jpg"]
    samples = read_bytes(make_tar((name, JPEG if "#" in name else b"1") for name in names), tmp_path)
    assert keys(samples) == [
        "x.jpg",
        "x.jpg#2",
        "x.jpg#2#2",
        "y.jpg",
        "x.jpg#3",
        "x.jpg#4",
        "/abs.jpg",
        "../../up.jpg",
        "tab\t\n\x1b[1m.jpg",
    ]


def test_a_member_over_the_limit_is_a_sample_without_its_bytes(tmp_path: Path) -> None:
    job = make_job(decode={"max_bytes": 100})
    members = [("1.jpg", bytes(101)), ("2.jpg", bytes(100)), ("3", JPEG + bytes(100)), ("4.txt", bytes(999))]
    first, second, third = read_bytes(make_tar(members), tmp_path, job)
    assert first.failure is not None
    assert first.failure.outcome is Outcome.TOO_LARGE
    assert first.failure.detail == "101 bytes are more than decode.max_bytes (100)"
    assert second.data == bytes(100)
    assert third.failure is not None
    assert third.failure.outcome is Outcome.TOO_LARGE


@pytest.mark.parametrize("data", [make_tar([]), make_tar([("a.txt", b"x")])])
def test_a_shard_without_images_is_one_sample(data: bytes, tmp_path: Path) -> None:
    [sample] = read_bytes(data, tmp_path)
    assert sample.key is None
    assert sample.failure is not None
    assert (sample.failure.outcome, sample.failure.detail) == (Outcome.EMPTY, "the shard holds no images")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", bytes(700), JPEG * 100])
def test_what_is_no_tar_is_one_sample(data: bytes, tmp_path: Path) -> None:
    [sample] = read_bytes(data, tmp_path)
    assert sample.key is None
    assert sample.failure is not None
    assert sample.failure.outcome in (Outcome.BAD_SHARD, Outcome.EMPTY)


def test_a_shard_cut_at_any_byte_gives_the_samples_before_and_one_in_place_of_the_rest(tmp_path: Path) -> None:
    data = make_tar(PHOTOS[:3])
    whole = read_bytes(data, tmp_path)
    end_of_members = 3 * 1536
    for cut in [*range(0, end_of_members, 97), *range(512, end_of_members + 512, 512), end_of_members + 511]:
        *before, last = read_bytes(data[:cut], tmp_path)
        assert before == whole[: len(before)]
        # A member whose bytes are whole is kept, although its padding is not.
        assert len(before) == sum(1 for at in range(3) if cut >= at * 1536 + 512 + len(PHOTOS[at][1]))
        assert (last.key, last.data) == (None, None)
        assert last.failure is not None
        assert last.failure.outcome is Outcome.BAD_SHARD
    assert read_bytes(data[: end_of_members + 512], tmp_path) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 5 * 1536), st.binary(min_size=1, max_size=20)), max_size=4),
    st.integers(0, 10240),
    st.sets(st.integers(0, 7)),
    st.booleans(),
)
def test_whatever_is_damaged_skipping_changes_nothing_else(
    tmp_path: Path, damages: list[tuple[int, bytes]], cut: int, skip: set[int], grouped: bool
) -> None:
    data = bytearray(make_tar([*PHOTOS[:3], ("003.json", b'{"a": 1}'), ("003.JPG", JPEG)])[:cut])
    for at, damage in damages:
        data[at : at + len(damage)] = damage[: max(0, len(data) - at)]
    job = make_job("json") if grouped else make_job()
    whole = read_bytes(bytes(data), tmp_path, job)
    assert whole
    assert read_bytes(bytes(data), tmp_path, job) == whole
    rest = read_bytes(bytes(data), tmp_path, job, skip & {sample.index for sample in whole})
    assert rest == [sample for sample in whole if sample.index not in skip]


def test_the_json_member_of_a_group_goes_with_its_images(tmp_path: Path) -> None:
    members = [
        ("a/1.jpg", JPEG),
        ("a/1.seg.png", b"s"),
        ("a/1.json", b'{"caption": "caf\xc3\xa9"}'),
        ("a/2.json", b'{"caption": "before"}'),
        ("a/2.jpg", JPEG),
        ("b/2.jpg", JPEG),
        ("3.jpg", JPEG),
        ("4.json", b"not \xff JSON"),
        ("4.jpg", JPEG),
    ]
    samples = read_bytes(make_tar(members), tmp_path, make_job("json"))
    assert [(sample.key, sample.columns) for sample in samples] == [
        ("a/1.jpg", '{"json": "{\\"caption\\": \\"café\\"}"}'),
        ("a/1.seg.png", '{"json": "{\\"caption\\": \\"café\\"}"}'),
        ("a/2.jpg", '{"json": "{\\"caption\\": \\"before\\"}"}'),
        ("b/2.jpg", None),
        ("3.jpg", None),
        ("4.jpg", '{"json": "not \ufffd JSON"}'),
    ]
    assert all(sample.columns is None for sample in read_bytes(make_tar(members), tmp_path))


def test_a_group_does_not_fill_the_memory(tmp_path: Path) -> None:
    members = [(f"1.{number}.jpg", bytes(60)) for number in range(5)]
    samples = read_bytes(make_tar([*members, ("1.json", b"{}")]), tmp_path, make_job("json"), group_bytes=1200)
    assert [sample.columns is not None for sample in samples] == [False] * 3 + [True] * 2


def test_copies_of_a_groups_json_do_not_fill_the_memory(tmp_path: Path) -> None:
    members = [("1.json", b"x" * 3000), *((f"1.{number}.jpg", b"") for number in range(40))]
    samples = read_bytes(make_tar(members), tmp_path, make_job("json"), group_bytes=10_000)
    assert [sample.columns is not None for sample in samples] == [True] * 3 + [False] * 37
    # What is skipped changes nothing else.
    assert read_bytes(make_tar(members), tmp_path, make_job("json"), {0, 1}, group_bytes=10_000) == samples[2:]


@pytest.mark.parametrize("n", [25_000, pytest.param(100_000, marks=pytest.mark.variant)])
@pytest.mark.parametrize("keep", [(), ("json",)])
def test_many_empty_members_of_one_name_are_read_in_bounded_time(tmp_path: Path, keep: tuple[str, ...], n: int) -> None:
    header = make_tar([("x.1.jpg", b"")])[:512]
    begun = time.process_time()
    samples = read_bytes(header * n + bytes(1024), tmp_path, make_job(*keep))
    assert time.process_time() - begun < n / 5_000  # a tenth of it, on a quiet machine
    assert len(samples) == n
    assert (samples[0].key, samples[-1].key) == ("x.1.jpg", f"x.1.jpg#{n}")


def test_links_and_devices_are_no_samples_and_odd_names_are_only_names(tmp_path: Path) -> None:
    odd = [
        "../../x.jpg",
        "/abs.jpg",
        "a\nb.jpg",
        "\x1b[2J.jpg",
        "\u202egpj.jpg",
        "a//b.jpg",
        "n" * 300 + ".jpg",
        "C:\\x.jpg",
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
            info = tarfile.TarInfo("/etc/hostname.jpg")
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
        for name in odd:
            info = tarfile.TarInfo(name)
            info.size = len(JPEG)
            archive.addfile(info, io.BytesIO(JPEG))
    samples = read_bytes(buffer.getvalue(), tmp_path)
    assert [(sample.key, sample.data) for sample in samples] == [(name, JPEG) for name in odd]
    # Nothing is ever unpacked.
    assert [path.name for path in tmp_path.rglob("*")] == ["shard.tar"]
    assert not (tmp_path / "../../x.jpg").exists()


def test_compressed_shards_read_as_plain_ones(place: Place) -> None:
    plain, _ = read(place.put("shard.tar", make_tar(PHOTOS)), place.store)
    data = make_tar(PHOTOS)
    for name, zipped in (
        ("a.tar.gz", gzip.compress(data)),
        ("b.tgz", gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(100)),
    ):
        assert read(place.put(name, zipped), place.store)[0] == plain


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (gzip.compress(make_tar(PHOTOS))[:-20], "gzip data that break off"),
        (b"\x1f\x8b\x08 no gzip", "damaged gzip data"),
        (
            gzip.compress(make_tar([("0.jpg", b"x"), ("bomb.jpg", bytes(10**7))])),
            "gzip data that expand more than 200-fold",
        ),
    ],
    ids=["cut", "damaged", "bomb"],
)
def test_damaged_compression_is_a_bad_shard(data: bytes, detail: str, tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(data)
    *_, last = read(str(tmp_path / "s.tar.gz"))[0]
    assert last.failure is not None
    assert (last.failure.outcome, last.failure.detail) == (Outcome.BAD_SHARD, detail)


@pytest.mark.parametrize("act", ["truncate", "reset", "unavailable", "lose"])
def test_faults_neither_lose_nor_double_samples(s3_place: Place, fault_proxy: FaultProxy, act: Any) -> None:
    uri = s3_place.put("shard.tar", make_tar(PHOTOS))
    fault_proxy.rules = [Rule("^GET", act, 300, after=at, times=1) for at in (0, 3, 7)]
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=4, timeout_s=0.5)
    samples, _ = read(uri, store, range_bytes=1000)
    assert [(sample.key, sample.data) for sample in samples] == PHOTOS
    assert all(rule.times == 0 for rule in fault_proxy.rules)


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Rule("^GET", "unavailable", after=4), Outcome.UNREACHABLE),
        (Rule("^GET", "error", 403, "AccessDenied", after=4), Outcome.FORBIDDEN),
        (Rule("^GET", "error", 404, "NoSuchKey", after=4), Outcome.MISSING),
    ],
)
def test_a_shard_that_is_lost_half_way_keeps_its_samples_and_says_why(
    s3_place: Place, fault_proxy: FaultProxy, rule: Rule, outcome: Outcome
) -> None:
    uri = s3_place.put("shard.tar", make_tar(PHOTOS))
    fault_proxy.rules = [rule]
    *before, last = read(uri, StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2), range_bytes=1000)[0]
    assert [(sample.key, sample.data) for sample in before] == PHOTOS[: len(before)]
    assert 1 <= len(before) <= 3
    assert last.failure is not None
    assert last.failure.outcome is outcome


def test_a_shard_replaced_since_it_was_listed_is_changed(place: Place) -> None:
    uri = place.put("shard.tar", make_tar(PHOTOS))
    objects = Objects(place.store)
    listed = objects.stat(uri)
    place.put("shard.tar", make_tar(PHOTOS * 3))
    source = Source(uri, "tar", listed.size, listed.etag, listed.mtime_ns)
    sample, end = read_samples(source, objects, make_job())
    assert isinstance(sample, Sample)
    assert sample.failure is not None
    assert sample.failure.outcome is Outcome.CHANGED
    assert end == End(1, sample.failure)
