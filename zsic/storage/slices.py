"""How the pending sources of a plan are cut into pieces of work: what one decode task reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from zsic.storage.ledger import Ledger, Runs
from zsic.storage.plan import read_piece
from zsic.storage.store import Store

MAX_SLICES = 100_000
"""The driver holds one small record a slice; more would make it slow."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The sources at the positions [start, stop) of one piece of a plan.

    `skip` holds ranges of indices that exist already, and is set only for a slice of a single source.
    """

    piece: str
    start: int
    stop: int
    skip: Runs = ()


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
