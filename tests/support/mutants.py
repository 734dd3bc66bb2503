"""Seeded damage: whole files of every kind, mutated, and read as a job reads them.

`python -m support.mutants FIRST LAST LOG KIND...` tries mutants by number, each the same wherever it runs.  It is a
process of its own, because what it looks for may be a crash: the mutant under way is then the last one in its log.
"""

import gzip
import io
import resource
import struct
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from support import images
from zsic.core.decode import DecodeError, decode
from zsic.core.outcome import Failure, Outcome
from zsic.core.preprocess import Geometry, prepare
from zsic.core.spec import DecodeSpec, JobSpec, StoreSpec, make_spec
from zsic.storage.objects import Objects
from zsic.storage.sample import End, Sample, Source
from zsic.storage.samples import read_samples

MAX_SECONDS = 5.0
"""CPU seconds of one mutant; they are small files."""
MAX_GROWTH_MB = 400
"""Of the process, over what it held before its first mutant."""

GEOMETRY = Geometry(16, "bicubic", (16, 16))
MAX_PIXELS = 200_000
JPEG = b"\xff\xd8\xff\xe0 not all of a JPEG"

Outcomes = list[Outcome]


# What is mutated


@cache
def image_seeds() -> tuple[bytes, ...]:
    """One of each format and kind of decoder, small."""
    cases = images.hostile_images().values()
    return tuple(case.data for case in cases if case.outcome is Outcome.OK and len(case.data) < 20_000)


@cache
def tar_seeds() -> tuple[bytes, ...]:
    """Archives of each format, with names, links and records of every kind."""
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for number in range(4):
                long = "folder/" * (20 if number == 2 else 1)
                entry = tarfile.TarInfo(f"{long}{number}.jpg")
                entry.size = (700, 0, 30, 512)[number]
                if form == tarfile.PAX_FORMAT and number == 1:
                    entry.pax_headers = {"comment": "x" * 40, "mtime": "1.5"}
                archive.addfile(entry, io.BytesIO(JPEG + bytes(700)))
                text = tarfile.TarInfo(f"{long}{number}.json")
                text.size = 2
                archive.addfile(text, io.BytesIO(b"{}"))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "target/" * (10 if form == tarfile.USTAR_FORMAT else 30)
            archive.addfile(link)
        seeds.append(buffer.getvalue())
    return tuple(seeds)


@cache
def parquet_seeds() -> tuple[bytes, ...]:
    """Files of each compression, encoding and layout that pyarrow writes."""
    pictures = [JPEG + bytes([number]) * (20 * number) for number in range(12)]
    structs = [None if number == 5 else {"bytes": data, "path": "x"} for number, data in enumerate(pictures)]
    plain = {"image": pictures, "text": ["t"] * 12, "n": list(range(12))}
    nested = {"image": structs, "tags": [["a", "b"], [], None] * 4}
    large = {"image": pa.array([None, *pictures[1:]], pa.large_binary()), "d": pa.array([1.5] * 12)}
    seeds = []
    for number, compression in enumerate(("none", "snappy", "zstd", "gzip", "brotli", "lz4")):
        for table in (plain, nested, large):
            buffer = io.BytesIO()
            pq.write_table(
                pa.table(table),
                buffer,
                compression=compression,
                row_group_size=5,
                use_dictionary=number % 2 == 0,
                data_page_version=("1.0", "2.0")[number % 2],
                write_page_checksum=number == 3,
                write_page_index=number > 3,
            )
            seeds.append(buffer.getvalue())
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        buffer = io.BytesIO()
        pq.write_table(pa.table(plain), buffer, use_dictionary=False, column_encoding={"image": encoding})
        seeds.append(buffer.getvalue())
    return tuple(seeds)


SEEDS: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "image": image_seeds,
    "tar": tar_seeds,
    "tar.gz": tar_seeds,
    "parquet": parquet_seeds,
}


# How it is mutated


def mutant(kind: str, number: int) -> bytes:
    """Damage a file; the same number gives the same damage."""
    rng = Random(f"{kind} {number}")
    seeds = SEEDS[kind]()
    data = bytearray(rng.choice(seeds))
    if kind == "tar.gz" and rng.random() < 0.7:
        data = bytearray(gzip.compress(data, 1, mtime=0))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if data:
            _damage(rng, data, kind, seeds)
    if kind == "tar" and rng.random() < 0.7:
        _mend_sums(data)
    if kind == "tar.gz" and not data.startswith(b"\x1f\x8b"):
        data = bytearray(gzip.compress(data, 1, mtime=0))
    return bytes(data)


def _damage(rng: Random, data: bytearray, kind: str, seeds: tuple[bytes, ...]) -> None:
    reach = min(len(data), rng.choice((40, 600, len(data))))
    # Headers come first, but Parquet has its footer at the end.
    at = rng.randrange(reach)
    if kind == "parquet" and rng.random() < 0.6:
        at = len(data) - 1 - at
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            del data[rng.randrange(len(data)) :]
        case 3:
            del data[at : at + rng.choice((1, 4, 64, 512))]
        case 4:
            data[at:at] = data[at : at + rng.choice((1, 12, 64, 512))] * rng.choice((1, 1, 3))
        case 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.choice((16, 512, 5000))]
        case 6:
            value = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32)))
            form = rng.choice(("<I", ">I", "<H", ">H"))
            field = struct.pack(form, value & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
            data[at : at + len(field)] = field
        case 7 if kind.startswith("tar"):
            _damage_header(rng, data)
        case 7:
            data[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))


def _damage_header(rng: Random, data: bytearray) -> None:
    """Write something telling into a field of a tar header."""
    at = 512 * rng.randrange(len(data) // 512 + 1)
    sizes = (b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0", b"77777777777\0", b"%011o\0" % rng.randrange(3000))
    start, value = rng.choice(
        (
            (124, rng.choice(sizes)),
            (156, rng.choice((b"x", b"g", b"L", b"K", b"S", b"0", b"5", b"1", b"\0"))),
            (0, rng.randbytes(rng.randrange(1, 100))),
            (345, rng.randbytes(20)),
            (482, b"\1"),
        )
    )
    data[at + start : at + start + len(value)] = value


def _mend_sums(data: bytearray) -> None:
    """Make check sums right again where they stood, so that damage gets past them."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


# What becomes of it


def read_image(data: bytes, folder: Path) -> Outcomes:
    """Both ways of decoding make a row, and the same one."""
    fates: list[tuple[Failure | None, tuple[int | None, int | None]]] = []
    for mode in ("pil", "exact"):
        spec = DecodeSpec(max_pixels=MAX_PIXELS, mode=mode)
        try:
            prepared = prepare(data, GEOMETRY, spec)
        except DecodeError as error:
            fates.append((error.failure, (error.width, error.height)))
        else:
            assert prepared.pixels_HW3.shape == (16, 16, 3)
            assert 0 < prepared.width * prepared.height <= MAX_PIXELS
            fates.append((None, (prepared.width, prepared.height)))
    assert fates[0] == fates[1], fates
    [failure, _] = fates[0]
    return [failure.outcome if failure else Outcome.OK]


@cache
def _job(*keep: str) -> JobSpec:
    source = {"uris": ["unused"], "keep_columns": keep}
    return make_spec({"source": source, "labels": ["cat", "dog"], "output": "unused"})


def read_shard(kind: str, data: bytes, folder: Path) -> Outcomes:
    """A shard gives samples in order and then the end, and the same ones whatever is skipped."""
    path = folder / f"mutant.{kind}"
    path.write_bytes(data)
    objects = Objects(StoreSpec())
    info = objects.stat(str(path))
    source = Source(info.uri, "parquet" if kind == "parquet" else "tar", info.size, info.etag, info.mtime_ns)
    job = _job("text", "n", "tags", "d") if kind == "parquet" else _job(*(("json",) if len(data) % 2 else ()))
    samples = list(_check(read_samples(source, objects, job)))
    n = len(samples)
    for skipped in (set(range(0, n, 2)), set(range(n // 2)), set(range(n - 1))):
        again = list(_check(read_samples(source, objects, job, skip=skipped.__contains__), skipped))
        assert again == [sample for sample in samples if sample.index not in skipped]
    return [sample.failure.outcome if sample.failure else Outcome.OK for sample in samples]


def _check(found: Iterator[Sample | End], skipped: set[int] | frozenset[int] = frozenset()) -> Iterator[Sample]:
    *samples, end = found
    assert isinstance(end, End)
    assert end.total > 0
    assert len(samples) < 10_000
    expected = (index for index in range(end.total) if index not in skipped)
    for sample, index in zip(samples, expected, strict=True):
        assert isinstance(sample, Sample)
        assert sample.index == index
        assert (sample.data is None) == (sample.failure is not None)
        (sample.key or "").encode()
        (sample.columns or "").encode()
        yield sample


def read(kind: str, data: bytes, folder: Path) -> Outcomes:
    """Read a file as a job would; anything but rows is an error."""
    return read_image(data, folder) if kind == "image" else read_shard(kind, data, folder)


def try_mutants(kind: str, numbers: range, log: io.TextIOBase) -> str:
    """Read mutants; the log says which one is under way.  Returns what became of them."""
    warnings.simplefilter("ignore")  # Pillow warns of much that is odd in metadata
    outcomes: Counter[Outcome] = Counter()
    slowest = (0.0, -1)
    before = 0
    with tempfile.TemporaryDirectory() as folder:
        read(kind, SEEDS[kind]()[0], Path(folder))
        decode(image_seeds()[0], DecodeSpec())
        before = _peak_mb()
        for number in numbers:
            log.seek(0)
            log.write(f"{kind:8s}{number:12d}")
            log.flush()
            data = mutant(kind, number)
            begun = time.process_time()
            outcomes.update(read(kind, data, Path(folder)))
            seconds = time.process_time() - begun
            slowest = max(slowest, (seconds, number))
            assert seconds < MAX_SECONDS, f"mutant {number} took {seconds:.1f} s"
            grown = _peak_mb() - before
            assert grown < MAX_GROWTH_MB, f"mutant {number} took {grown} MB"
    told = ", ".join(f"{name} {n}" for name, n in outcomes.most_common())
    return (
        f"{len(numbers)} mutants of {kind}: {told}; "
        f"slowest {slowest[0]:.3f} s (number {slowest[1]}), {_peak_mb() - before} MB more"
    )


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    first, last, log_path, *kinds = sys.argv[1:]
    with open(log_path, "w", encoding="ascii") as log:
        for kind in kinds:
            sys.stdout.write(try_mutants(kind, range(int(first), int(last)), log) + "\n")
