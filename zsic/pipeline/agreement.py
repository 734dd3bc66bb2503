"""Whether int8 answers as float32 does: measured on images of the source, before an output is begun.

Shape legend: B images, H W pixels, D embedding width.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from zsic.core.cell import Cells
from zsic.core.decode import DecodeError
from zsic.core.errors import SpecError
from zsic.core.preprocess import Pixels
from zsic.pipeline.job import Job
from zsic.storage.output import Listing
from zsic.storage.rows import RawRow, read_sources_rows
from zsic.storage.sample import Source

N_IMAGES = 256
N_SHARDS = 8
_BATCH = 16
_LONG_S = 120
_ENOUGH = 64
"""Of a large tower, which takes seconds an image, so many must do."""


@dataclass(frozen=True)
class Agreement:
    """How often the best label stayed the same."""

    n_images: int
    n_same: int

    @property
    def share(self) -> float:
        return self.n_same / max(self.n_images, 1)

    def __str__(self) -> str:
        return f"int8 and float32 gave the same label to {self.n_same} of {self.n_images} images ({self.share:.1%})"


def check_agreement(job: Job, listing: Listing, n_images: int = N_IMAGES) -> Agreement:
    """Classify up to `n_images` images that are spread over the first ten thousand sources both ways.

    Raises `SpecError` where fewer than `execution.min_agreement` keep their best label.
    """
    import torch

    from zsic.models.encoder import ImageEncoder

    heads = job.find_heads()
    encoders = [ImageEncoder(job.checkpoint, dtype=dtype) for dtype in ("int8", "float32")]
    started = time.monotonic()
    n_compared = n_same = 0
    pictures = islice(_pictures(job, listing, n_images), n_images)
    while batch := list(islice(pictures, _BATCH)):
        pixels_BHW3 = np.stack(batch)
        verdicts = [heads.judge(each.encode(pixels_BHW3)) for each in encoders]
        best = [[verdict.top.label_index_BK[:, 0] for verdict in each] for each in verdicts]
        same = [ours_B == theirs_B for ours_B, theirs_B in zip(*best, strict=True)]
        n_compared += len(batch)
        n_same += int(torch.stack(same).all(dim=0).sum())
        if n_compared >= _ENOUGH and time.monotonic() - started > _LONG_S:
            break
    agreement, least = Agreement(n_compared, n_same), job.spec.execution.min_agreement
    if n_compared and agreement.share < least:
        raise SpecError(
            f"model.quantize: {agreement}, and execution.min_agreement is {least:.1%}; leave model.quantize out, or "
            "lower the limit if near ties between labels do not matter"
        )
    return agreement


def _pictures(job: Job, listing: Listing, n_images: int) -> Iterator[Pixels]:
    """Pixels of the images that can be decoded; in a cell, for nobody knows these images yet."""
    with Cells(1, job.geometry, job.spec.decode, job.spec.execution.decode_timeout_s, fork=True) as cells:
        for row in _rows(job, listing, n_images):
            pixels_HW3 = np.zeros((*job.geometry.size, 3), np.uint8)
            if row.data is not None:
                try:
                    cells.prepare(row.data, pixels_HW3)
                except DecodeError:
                    continue
                yield pixels_HW3


def _rows(job: Job, listing: Listing, n_images: int) -> Iterator[RawRow]:
    """Loose images, or the first images of some shards: a source sorted by class must not show one class alone."""
    batch = next(iter(listing), None)
    sources = [] if batch is None else [Source(**row) for row in batch.to_pylist()]
    shards = [source for source in sources if source.kind != "image"]
    if not shards:
        loose = sources[:: max(1, len(sources) // n_images)]
        yield from read_sources_rows(list(enumerate(loose)), job.objects, job.spec)
        return
    shards = shards[:: max(1, len(shards) // N_SHARDS)]
    for shard in shards:
        rows = read_sources_rows([(0, shard)], job.objects, job.spec)
        yield from islice(rows, -(-n_images // len(shards)))
