"""What an image of the source costs, measured on some of them: fetched, decoded and encoded in this process.

Seconds of CPU are measured with the cores at work side by side, as in the job: one core alone has caches and clock for
itself, and of two that share its units each does half.

Shape legend: N images, B images of a batch, H W pixels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zsic.core.decode import DecodeError
from zsic.core.preprocess import prepare as decode
from zsic.pipeline.job import QUANTISED, Job
from zsic.pipeline.nodes import available_cpus
from zsic.storage.access import ReadError
from zsic.storage.pending import TAR_OVERHEAD_BYTES, PendingCount
from zsic.storage.rows import read_sources_rows
from zsic.storage.sample import Source

N_SHARDS = 8
"""Shards of which images are taken, and streams of which the rate is measured."""
STREAM_BYTES = 32 * 2**20
"""Read of each of these shards: several of the ranges that are fetched ahead."""
MAX_BYTES = 2**30
"""Images held at once; a sample of large ones has fewer."""
ENCODE_S = 10.0
"""So long the image tower is measured: of a large one, a few images must do."""
GPU_FLOPS_PER_S = 1e14
"""Where no GPU is at hand: a middling one.  Measured on an H100: 280 to 430 TFLOP/s, from B/32 to L/14
(benchmarks/results/gpu_h100-16-cores_2026-11-26.md)."""

_BATCH = 16
_MAX_THREADS = 8
"""More tell nothing new of a core, and each holds what a batch leaves in the tower."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageCost:
    """What one image takes of each resource, in the mean; those that failed count."""

    n_images: int
    """Measured."""
    n_bytes: float
    """Of an image, and of what lies around it in a shard."""
    shard_image_bytes: float | None
    """The same, of those in shards alone; None where there are none."""
    fetch_s: float
    """Wall seconds of a decode task that waits for nothing but bytes."""
    fetch_cpu_s: float
    decode_cpu_s: float
    encode_cpu_s: float
    """0 on a GPU."""
    gpu_s: float = 0.0
    """Of a whole GPU; 0 on CPUs."""
    gpu_measured: bool = False


def measure(job: Job, counted: PendingCount, n: int) -> ImageCost | None:
    """Measure about `n` images of the sources that were drawn; None if none of them could be fetched."""
    sources = counted.drawn.sources
    loose = [source for source in sources if source.kind == "image"]
    shards = [source for source in sources if source.kind != "image"][:N_SHARDS]
    # How many images shards hold is not known: their bytes tell how much of the sample comes from them.
    in_shards = counted.n_shard_bytes / max(counted.n_shard_bytes + counted.n_loose_bytes, 1) if loose else 1.0
    n_from_shards = ceil(n * in_shards) if shards else 0
    parts = [_fetch_loose(job, loose[: n - n_from_shards])] if n > n_from_shards else []
    if n_from_shards:
        videos = [source for source in shards if source.kind == "video"]
        n_from_videos = n_from_shards * len(videos) // len(shards)
        if n_from_videos:
            parts.append(_fetch_from_videos(job, videos, n_from_videos))
        if len(videos) < len(shards):
            others = [source for source in shards if source.kind != "video"]
            parts.append(_fetch_from_shards(job, others, n_from_shards - n_from_videos))
    images = [image for part in parts for image in part.images]
    if not images:
        return None
    decode_cpu_s, pixels_NHW3 = _decode(job, images)
    encode_cpu_s, gpu_s, gpu_measured = 0.0, 0.0, False
    if len(pixels_NHW3) and job.spec.execution.on_device == "cuda":
        gpu_s, gpu_measured = _gpu_s(job, pixels_NHW3)
    elif len(pixels_NHW3):
        encode_cpu_s = _encode(job, pixels_NHW3)
    share_ok = len(pixels_NHW3) / len(images)
    return ImageCost(
        n_images=len(images),
        n_bytes=_mean(parts, "image_bytes"),
        shard_image_bytes=_mean(parts[n > n_from_shards :], "image_bytes") if n_from_shards else None,
        fetch_s=_mean(parts, "fetch_s"),
        fetch_cpu_s=_mean(parts, "fetch_cpu_s"),
        decode_cpu_s=decode_cpu_s,
        encode_cpu_s=share_ok * encode_cpu_s,
        gpu_s=share_ok * gpu_s,
        gpu_measured=gpu_measured,
    )


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Images, and what one of them took in the mean."""

    images: list[bytes]
    image_bytes: float
    fetch_s: float
    fetch_cpu_s: float


def _mean(parts: Sequence[_Fetched], name: str) -> float:
    n = sum(len(part.images) for part in parts)
    return sum(len(part.images) * float(getattr(part, name)) for part in parts) / n


def _fetch_loose(job: Job, sources: Sequence[Source]) -> _Fetched:
    wall, cpu = time.perf_counter(), time.process_time()
    rows = read_sources_rows(list(enumerate(sources)), job.objects, job.spec)
    images = list(_within(MAX_BYTES // 2, (row.data for row in rows if row.data is not None)))
    n = max(len(images), 1)
    return _Fetched(
        images, sum(map(len, images)) / n, (time.perf_counter() - wall) / n, (time.process_time() - cpu) / n
    )


def _fetch_from_shards(job: Job, shards: Sequence[Source], n: int) -> _Fetched:
    images = list(_within(MAX_BYTES // 2, _take(job, shards, n)))
    image_bytes = sum(map(len, images)) / max(len(images), 1) + TAR_OVERHEAD_BYTES
    stream_s, stream_cpu_s = _stream(job, shards)
    return _Fetched(images, image_bytes, image_bytes * stream_s, image_bytes * stream_cpu_s)


def _fetch_from_videos(job: Job, videos: Sequence[Source], n: int) -> _Fetched:
    """Frames, which cost what it takes to decode all those between them, by one core beside this process."""
    images: list[bytes] = []
    n_bytes, started = 0, time.perf_counter()
    for video in videos:
        for row in islice(read_sources_rows([(0, video)], job.objects, job.spec), ceil(n / len(videos))):
            if row.data is not None and sum(map(len, images)) < MAX_BYTES // 2:
                images.append(row.data)
                n_bytes += row.n_bytes
    n_images, seconds = max(len(images), 1), time.perf_counter() - started
    return _Fetched(images, n_bytes / n_images, seconds / n_images, seconds / n_images)


def _take(job: Job, shards: Sequence[Source], n: int) -> Iterator[bytes]:
    """The first images of each shard."""
    for shard in shards:
        rows = read_sources_rows([(0, shard)], job.objects, job.spec)
        for row in islice(rows, ceil(n / len(shards))):
            if row.data is not None:
                yield row.data


def _within(n_bytes: int, images: Iterator[bytes]) -> Iterator[bytes]:
    """Images until so many bytes are held."""
    for image in images:
        yield image
        n_bytes -= len(image)
        if n_bytes <= 0:
            return


def _stream(job: Job, shards: Sequence[Source]) -> tuple[float, float]:
    """Wall and CPU seconds for a byte of one stream; images at the front of a shard come with what is read ahead."""
    wall, cpu, n_bytes = time.perf_counter(), time.process_time(), 0
    for shard in shards:
        try:
            with job.objects.open_stream(shard.info) as stream:
                n_bytes += stream.skip(STREAM_BYTES)
        except ReadError:
            continue  # the run makes it a row
    return (time.perf_counter() - wall) / max(n_bytes, 1), (time.process_time() - cpu) / max(n_bytes, 1)


def _decode(job: Job, images: list[bytes]) -> tuple[float, npt.NDArray[np.uint8]]:
    """CPU seconds of one, and the pixels of those that could be decoded."""

    def decode_one(data: bytes) -> npt.NDArray[np.uint8] | None:
        pixels_HW3 = np.zeros((*job.geometry.size, 3), np.uint8)
        try:
            decode(data, job.geometry, job.spec.decode, pixels_HW3)
        except DecodeError:
            return None
        return pixels_HW3

    cpu_s, pixels = _side_by_side(decode_one, images)
    good = [each for each in pixels if each is not None]
    return cpu_s / len(images), np.stack(good) if good else np.zeros((0, *job.geometry.size, 3), np.uint8)


def _encode(job: Job, pixels_NHW3: npt.NDArray[np.uint8]) -> float:
    """CPU seconds of one image in the tower."""
    from zsic.models.encoder import ImageEncoder

    encoder = ImageEncoder(job.checkpoint, dtype=job.dtype, threads=1)
    batches = [pixels_NHW3[at : at + _BATCH] for at in range(0, len(pixels_NHW3), _BATCH)]
    encoder.encode(batches[0])  # the first pass pays for allocations
    cpu_s, n, started = 0.0, 0, time.perf_counter()
    while time.perf_counter() - started < ENCODE_S and n < len(pixels_NHW3):
        at = n // _BATCH
        round_cpu_s, _ = _side_by_side(encoder.encode, batches[at : at + _threads()])
        cpu_s += round_cpu_s
        n += sum(map(len, batches[at : at + _threads()]))
    return cpu_s / n


def _gpu_s(job: Job, pixels_NHW3: npt.NDArray[np.uint8]) -> tuple[float, bool]:
    """Seconds of a GPU for one image, and whether they were measured: else they follow from its arithmetic."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from zsic.models.encoder import ImageEncoder

    if torch.cuda.is_available() and job.dtype != QUANTISED:
        encoder = ImageEncoder(job.checkpoint, device="cuda", dtype=job.dtype)
        pixels_BHW3 = np.resize(pixels_NHW3, (256, *pixels_NHW3.shape[1:]))
        encoder.encode(pixels_BHW3).cpu()
        n, started = 0, time.perf_counter()
        while time.perf_counter() - started < ENCODE_S / 5:
            encoder.encode(pixels_BHW3).cpu()
            n += len(pixels_BHW3)
        return (time.perf_counter() - started) / n, True
    encoder = ImageEncoder(job.checkpoint, dtype="float32")
    with FlopCounterMode(display=False) as counter:
        encoder.encode(pixels_NHW3[:1])
    return counter.get_total_flops() / GPU_FLOPS_PER_S, False


def _threads() -> int:
    return min(available_cpus(), _MAX_THREADS)


def _side_by_side(do: Callable[..., T], items: Sequence[object]) -> tuple[float, list[T]]:
    """CPU seconds of doing this with every item, the cores at work side by side, and what came out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of one operation would wait for one another by spinning
    try:
        with ThreadPoolExecutor(_threads()) as pool:
            started = time.process_time()
            results = list(pool.map(do, items))
            return time.process_time() - started, results
    finally:
        torch.set_num_threads(before)
