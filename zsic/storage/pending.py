"""How much is left to do, before shards have been read: counted where it can be, estimated elsewhere."""

from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.spec import JobSpec
from zsic.storage.ledger import Ledger
from zsic.storage.objects import Objects
from zsic.storage.plan import SOURCE_COLUMNS, Plan, read_piece
from zsic.storage.sample import Sample, Source
from zsic.storage.samples import read_samples
from zsic.storage.spread import Spread
from zsic.storage.store import Store
from zsic.storage.video import count_frames

N_SAMPLED = 64
"""Images of the first shard whose size stands for all, and sources drawn to be tried."""
TAR_OVERHEAD_BYTES = 768
"""A member's header and, in the mean, its padding."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is left to do."""

    n_images: int
    exact: bool
    """Whether `n_images` is a count; with shards it is an estimate from their bytes."""
    n_bytes: int


@dataclass
class PendingCount:
    """Counts sources as they stream by."""

    n_loose: int = 0
    n_loose_bytes: int = 0
    n_shards: int = 0
    n_shard_bytes: int = 0
    first_shard: Source | None = None
    drawn: Spread = field(default_factory=lambda: Spread(N_SAMPLED))
    """Some of them all, for who wants to try them."""

    def add(self, sources: pa.Table | pa.RecordBatch) -> None:
        """Count some sources, given with all their columns."""
        loose_N = pc.equal(sources["kind"], "image").to_numpy(zero_copy_only=False)
        size_N = pc.fill_null(sources["size"], 0).to_numpy()
        self.n_loose += int(loose_N.sum())
        self.n_shards += int((~loose_N).sum())
        self.n_loose_bytes += int(size_N[loose_N].sum())
        self.n_shard_bytes += int(size_N[~loose_N].sum())
        if self.first_shard is None and not loose_N.all():
            self.first_shard = _source(sources, int(np.argmin(loose_N)))
        self.drawn.add(sources)

    def estimate(self, objects: Objects, spec: JobSpec, image_bytes: float | None = None) -> Pending:
        """Give what was counted.

        How large the images in shards are is known (`image_bytes`), or read from the beginning of the first.
        """
        n_in_shards = 0
        if self.first_shard is not None:
            image_bytes = image_bytes or _image_bytes(self.first_shard, objects, spec)
            n_in_shards = max(round(self.n_shard_bytes / image_bytes), self.n_shards)
        return Pending(
            n_images=self.n_loose + n_in_shards,
            exact=not self.n_shards,
            n_bytes=self.n_loose_bytes + self.n_shard_bytes,
        )


def count_pending(store: Store, plan: Plan, ledger: Ledger, n_drawn: int = N_SAMPLED) -> PendingCount:
    """Count what the ledger of a plan leaves to do; streams over the plan's pieces."""
    counted = PendingCount(drawn=Spread(n_drawn))
    position = 0
    for piece in plan.pieces:
        at = [each - position for each, *_ in ledger.pending(position, position + piece.n_sources)]
        # An empty list by itself has no type, and a piece of which nothing is left would be an error.
        indices = pa.array(at, pa.int64())
        counted.add(read_piece(store, piece, [field.name for field in SOURCE_COLUMNS]).take(indices))
        position += piece.n_sources
    return counted


def _source(sources: pa.Table | pa.RecordBatch, at: int) -> Source:
    return Source(**sources.slice(at, 1).to_pylist()[0])


def _image_bytes(shard: Source, objects: Objects, spec: JobSpec) -> float:
    """Bytes of an image in a shard, with its share of what lies around it."""
    if shard.kind == "video":
        return (shard.size or 1) / count_frames(shard, objects, spec)
    samples = read_samples(shard, objects, spec)
    sizes = [len(sample.data) for sample in islice(samples, N_SAMPLED) if isinstance(sample, Sample) and sample.data]
    # A shard that gives no image is one row.
    return fmean(sizes) + TAR_OVERHEAD_BYTES if sizes else float(shard.size or 1)
