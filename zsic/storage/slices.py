"""How the pending sources of a plan are cut into pieces of work: what one decode task reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from zsic.storage.ledger import Ledger, Runs
from zsic.storage.plan import read_piece
from zsic.storage.store import Store

MAX_SLICES = 100_000
"""The driver holds one small record a slice; more would make it slow."""
MAX_IMAGES = 1_000
"""Loose images of one slice."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The sources at the positions [start, stop) of one piece of a plan.

    `skip` holds ranges of indices that exist already, and is set only for a slice of a single source.
    """

    piece: str
    start: int
    stop: int
    skip: Runs = ()


BYTES_PER_IMAGE = 100_000
"""A guess for shards, whose images are counted when they are read."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is left to do of a plan."""

    n_images: int
    exact: bool
    """Whether `n_images` is a count; with shards it is a guess from their bytes."""
    n_bytes: int


def estimate_pending(store: Store, ledger: Ledger) -> Pending:
    """How much of a plan is pending; streams over its pieces."""
    n_loose = n_loose_bytes = n_shard_bytes = n_shards = position = 0
    for piece in ledger.plan.pieces:
        table = read_piece(store, piece, ["kind", "size"])
        loose_N = pc.equal(table["kind"], "image").to_numpy()
        size_N = pc.fill_null(table["size"], 0).to_numpy()
        pending_N = np.array(
            [at - position for at, _ in ledger.pending(position, position + piece.n_sources)], np.int64
        )
        loose = pending_N[loose_N[pending_N]]
        shards = pending_N[~loose_N[pending_N]]
        n_loose += len(loose)
        n_shards += len(shards)
        n_loose_bytes += int(size_N[loose].sum())
        n_shard_bytes += int(size_N[shards].sum())
        position += piece.n_sources
    n_images = n_loose + max(n_shard_bytes // BYTES_PER_IMAGE, n_shards)
    return Pending(n_images, exact=not n_shards, n_bytes=n_loose_bytes + n_shard_bytes)


def cut(store: Store, ledger: Ledger, *, images_per_slice: int) -> list[Slice]:
    """Cut what is pending into slices, in order of the plan.

    A shard or Parquet file is a slice of its own (several small ones share a slice in plans so large that there
    would be more than `MAX_SLICES`); of loose images up to `images_per_slice` neighbours form one.
    """
    slices: list[Slice] = []
    n_shards_per_slice = -(-ledger.plan.n_sources // MAX_SLICES)
    position = 0
    for piece in ledger.plan.pieces:
        loose = pc.equal(read_piece(store, piece, ["kind"])["kind"], "image").to_pylist()
        pending = (
            (at - position, skip, loose[at - position])
            for at, skip in ledger.pending(position, position + piece.n_sources)
        )
        for start, stop, skip in _join(pending, images_per_slice, n_shards_per_slice):
            slices.append(Slice(piece.name, start, stop, skip))
        position += piece.n_sources
    return slices


def _join(pending: Iterator[tuple[int, Runs, bool]], n_images: int, n_shards: int) -> Iterator[tuple[int, int, Runs]]:
    """Join neighbours of one kind, neither of which is begun, up to the given numbers."""
    start = stop = 0
    skip: Runs = ()
    loose = False
    for at, at_skip, at_loose in pending:
        room = n_images if at_loose else n_shards
        joins = at == stop and at_loose == loose and not skip and not at_skip and stop - start < room
        if not joins:
            if stop > start:
                yield start, stop, skip
            start, skip, loose = at, at_skip, at_loose
        stop = at + 1
    if stop > start:
        yield start, stop, skip
