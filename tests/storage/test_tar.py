import io
import tarfile
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.storage.stream import DamageError, Stream
from zsic.storage.tar import BLOCK, read_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60)
PATHS = st.lists(NAMES, min_size=1, max_size=8).map("/".join)
SHORT_NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0/"), min_size=1, max_size=90)


def make_tar(members: list[tuple[str, bytes]], form: str = "pax", **fields: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, chunk: int = 1000) -> list[tuple[str, bytes]]:
    stream = Stream(chunks(data, chunk), len(data))
    return [(member.name, stream.take(member.size)) for member in read_members(stream)]


def read_by_tarfile(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = []
        for info in archive:
            file = archive.extractfile(info) if info.isfile() else None
            if file is not None:
                found.append((info.name, file.read()))
        return found


@given(
    st.lists(st.tuples(PATHS, st.binary(max_size=1500)), max_size=5),
    st.sampled_from(["gnu", "pax"]),
    st.integers(1, 3000),
)
def test_any_archive_reads_as_tarfile_reads_it(members: list[tuple[str, bytes]], form: str, chunk: int) -> None:
    data = make_tar(members, form)
    assert read(data, chunk) == read_by_tarfile(data) == members


@given(st.lists(st.tuples(SHORT_NAMES, st.binary(max_size=600)), max_size=5))
def test_ustar_archives_read_as_tarfile_reads_them(members: list[tuple[str, bytes]]) -> None:
    data = make_tar(members, "ustar")
    assert read(data) == read_by_tarfile(data) == members


def test_ustar_names_of_more_than_100_bytes_are_in_two_fields() -> None:
    name = "folder/" * 20 + "x.jpg"
    data = make_tar([(name, b"1")], "ustar")
    assert data[345:352] == b"folder/"
    assert read(data) == [(name, b"1")]


def test_gnu_times_are_not_taken_for_the_start_of_a_name() -> None:
    data = bytearray(make_tar([("x.jpg", b"1")], "gnu"))
    data[345:357] = b"14712413145\0"
    fix_sum(data)
    assert read(bytes(data)) == [("x.jpg", b"1")]


def test_sizes_in_base_256_and_in_pax_records() -> None:
    data = bytearray(make_tar([("x.jpg", b"12345")], "gnu"))
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    fix_sum(data)
    assert read(bytes(data)) == [("x.jpg", b"12345")]

    data = bytearray(make_tar([("x.jpg", b"12345")], "pax", pax_headers={"size": "00005"}))
    at = data.index(b"0" * 10 + b"5", 2 * BLOCK)
    data[at : at + 11] = b"0" * 11
    fix_sum(data, 2 * BLOCK)
    assert read(bytes(data)) == read_by_tarfile(bytes(data)) == [("x.jpg", b"12345")]


def test_records_for_all_members_last_and_those_for_one_do_not() -> None:
    data = make_tar([("a.jpg", b"1"), ("b.jpg", b"2")])
    shared = make_pax_block(b"g", b"comment=x") + make_pax_block(b"x", b"path=first.jpg") + data
    assert read(shared) == read_by_tarfile(shared) == [("first.jpg", b"1"), ("b.jpg", b"2")]


def test_archives_strung_together_are_read_to_the_last() -> None:
    data = make_tar([("a.jpg", b"1")]) + make_tar([("b.jpg", b"2")])
    assert read(data) == [("a.jpg", b"1"), ("b.jpg", b"2")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_regular_files_are_members(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        odd = tarfile.TarInfo("odd.jpg")
        odd.type, odd.linkname = kind, "/etc/passwd"
        archive.addfile(odd)
        info = tarfile.TarInfo("../../a.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    assert read(buffer.getvalue()) == [("../../a.jpg", b"1")]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_links_are_passed_over(form: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as archive:
        link = tarfile.TarInfo("long/" * 30 + "link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "target/" * 40
        archive.addfile(link)
        info = tarfile.TarInfo("a.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    assert read(buffer.getvalue()) == [("a.jpg", b"1")]


def test_a_sparse_member_is_marked_and_passed_over() -> None:
    data = bytearray(make_tar([("sparse.jpg", bytes(700)), ("b.jpg", b"2")], "gnu"))
    data[156:157], data[482:483] = b"S", b"\1"
    fix_sum(data)
    more = bytearray(BLOCK)
    data[BLOCK:BLOCK] = more
    stream = Stream(iter([bytes(data)]), len(data))
    assert [(member.name, member.sparse) for member in read_members(stream)] == [
        ("sparse.jpg", True),
        ("b.jpg", False),
    ]


def test_names_that_are_no_utf8_are_spelled_out() -> None:
    data = bytearray(make_tar([("caf-.jpg", b"1")], "gnu"))
    data[3:4] = b"\xe9"
    fix_sum(data)
    assert read(bytes(data)) == [(r"caf\xe9.jpg", b"1")]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000000001\0", b"\x80" + b"\xff" * 11, b"99999999999\0"])
def test_hostile_sizes_end_at_once(size: bytes) -> None:
    # CVE-2025-8194: with a negative size, `tarfile` steps back and reads the same header for ever.
    data = bytearray(make_tar([("x.jpg", b"1"), ("y.jpg", b"2")], "gnu"))
    data[124:136] = size
    fix_sum(data)
    stream = Stream(iter([bytes(data)]), len(data))
    with pytest.raises(DamageError):
        list(read_members(stream))


@pytest.mark.parametrize(
    "record",
    [b"5 path=x\n", b"99 path=x\n", b"x path=y\n", b"0 path=x\n", b"11 size=-1\n", b"12 size=1e3\n", b"7 path\n"],
)
def test_damaged_pax_records_are_damage(record: bytes) -> None:
    data = make_pax_block(b"x", b"", record) + make_tar([("x.jpg", b"1")])
    with pytest.raises(DamageError, match="a damaged pax header at byte"):
        read(data)


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_headers_that_would_fill_the_memory_are_refused(kind: bytes) -> None:
    data = make_pax_block(kind, b"", bytes(2**21)) + make_tar([("x.jpg", b"1")])
    with pytest.raises(DamageError, match="a header of 2097152 bytes at byte 0"):
        read(data)


def test_records_for_all_members_take_no_memory_that_grows_with_them() -> None:
    headers = b"".join(make_pax_block(b"g", b"k%d=%s" % (number, bytes(900_000))) for number in range(3))
    data = headers * 40 + make_tar([("x.jpg", b"1")])
    stream = Stream(chunks(data, 2**20), len(data))
    tracemalloc.start()
    try:
        assert [member.name for member in read_members(stream)] == ["x.jpg"]
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_longer_than_any_path_are_refused(form: str) -> None:
    longest = "n" * 4092 + ".jpg"
    assert read(make_tar([(longest, b"1")], form))[0] == (longest, b"1")
    with pytest.raises(DamageError, match=r"409[78]"):
        read(make_tar([("n" + longest, b"1")], form))


def test_a_header_whose_sum_is_wrong_is_no_header() -> None:
    data = bytearray(make_tar([("x.jpg", b"1"), ("y.jpg", b"2")], "gnu"))
    data[1024 + 3] ^= 1
    stream = Stream(iter([bytes(data)]), len(data))
    members = read_members(stream)
    assert next(members).name == "x.jpg"
    with pytest.raises(DamageError, match="no tar header at byte 1024"):
        next(members)


def test_many_empty_members_are_read_in_bounded_time() -> None:
    header = make_tar([("x.jpg", b"")], "gnu")[:BLOCK]
    data = header * 100_000 + bytes(2 * BLOCK)
    begun = time.process_time()
    assert sum(1 for _ in read_members(Stream(chunks(data, 2**20), len(data)))) == 100_000
    assert time.process_time() - begun < 20  # two seconds, on a quiet machine


def test_damage_is_told_by_where_it_is() -> None:
    data = make_tar([("a.jpg", bytes(600)), ("b.jpg", b"2")], "gnu")
    with pytest.raises(DamageError, match="the archive ends at byte 1536, before its end mark"):
        read(data[:1536])
    with pytest.raises(DamageError, match="the archive ends within the member at byte 0"):
        read(data[:1300])
    with pytest.raises(DamageError, match="no tar header at byte 1536"):
        read(data[:1536] + b"\1" * 512 + data[2048:])
    with pytest.raises(DamageError, match="the archive ends at byte 0, before its end mark"):
        read(b"")


def fix_sum(data: bytearray, at: int = 0) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def make_pax_block(kind: bytes, record: bytes, raw: bytes | None = None) -> bytes:
    """An extended header with one record, or with raw bytes in its place."""
    length = len(record) + 3
    length += len(str(length)) - 1
    content = b"%d %s\n" % (length, record) if raw is None else raw
    header = bytearray(make_tar([("pax", content)], "ustar")[:BLOCK])
    header[156:157] = kind
    fix_sum(header)
    return bytes(header) + content + bytes(-len(content) % BLOCK)
