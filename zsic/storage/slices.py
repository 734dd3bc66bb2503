"""How the pending sources of a plan are cut into pieces of work: what one decode task reads."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from zsic.storage.ledger import Ledger, Runs
from zsic.storage.plan import Plan, read_piece
from zsic.storage.store import Store

MAX_SLICES = 100_000
"""The driver holds one small record a slice; more would make it slow."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The sources at the positions [start, stop) of one piece of a plan.

    `skip` holds ranges of indices that exist already, and `total` the rows of the source if its end has been read
    before; both are set only for a slice of a single source.
    """

    piece: str
    start: int
    stop: int
    skip: Runs = ()
    total: int | None = None


def cut(store: Store, plan: Plan, ledger: Ledger, *, images_per_slice: int, shards_per_slice: int = 1) -> list[Slice]:
    """Cut what is pending into slices, in order of the plan.

    Up to `shards_per_slice` shards or Parquet files, or `images_per_slice` loose images, that are neighbours form one;
    more share a slice only in plans so large that there would be more than `MAX_SLICES`.
    """
    slices: list[Slice] = []
    n_shards = max(shards_per_slice, -(-ledger.n_shards // MAX_SLICES))
    n_images = max(images_per_slice, -(-(ledger.n_sources - ledger.n_shards) // MAX_SLICES))
    position = 0
    for piece in plan.pieces:
        loose = pc.equal(read_piece(store, piece, ["kind"])["kind"], "image").to_pylist()
        pending = ledger.pending(position, position + piece.n_sources)
        slices += _join(piece.name, position, pending, loose, n_images, n_shards)
        position += piece.n_sources
    return slices


def _join(
    piece: str,
    first: int,
    pending: Iterator[tuple[int, Runs, int | None]],
    loose: list[bool],
    n_images: int,
    n_shards: int,
) -> Iterator[Slice]:
    """Join neighbours of one kind, none of which is begun, up to the given numbers."""
    held: Slice | None = None
    for position, skip, total in pending:
        at = position - first
        if (
            held is not None
            and at == held.stop
            and loose[at] == loose[held.start]
            and not (skip or held.skip)
            and held.stop - held.start < (n_images if loose[at] else n_shards)
        ):
            held = replace(held, stop=at + 1)
            continue
        if held is not None:
            yield held
        held = Slice(piece, at, at + 1, skip, total)
    if held is not None:
        yield held
