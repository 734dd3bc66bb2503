"""Which sources an output knows already: all that its plans hold, and in which version."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zsic.storage.part import Ids, Mask
from zsic.storage.plan import Plan, read_piece
from zsic.storage.store import Store

Hashes = npt.NDArray[np.uint64]

UNKNOWN = -1
"""In place of an ordinal."""


class KnownSources:
    """The sources of earlier plans: 40 bytes each in memory and 55 while they are sorted, whatever their names.

    A name that is listed several times (in a manifest) is as many sources: its n-th place in a listing is its
    n-th ordinal.  So a listing is to be matched once, from its beginning to its end.
    """

    def __init__(self, store: Store, plans: Iterable[Plan]) -> None:
        plans = list(plans)
        n = sum(piece.n_sources for plan in plans for piece in plan.added)
        name_N, check_N = np.empty(n, np.uint64), np.empty(n, np.uint64)
        self._version_N = np.empty(n, np.uint64)
        self.attempt_N = np.zeros(n, np.int8)
        """Times that each source was taken up again by itself, by ordinal."""
        self.live_N = np.ones(n, bool)
        """Which have not been dropped, by ordinal."""
        self.seen_N = np.zeros(n, bool)
        """Which the listing has held so far, by ordinal."""
        first = 0
        for plan in plans:
            for piece in plan.added:
                table = read_piece(store, piece, ["uri", "size", "etag", "mtime_ns"])
                these = slice(first, first + piece.n_sources)
                name_N[these], check_N[these] = _hash_uris(table)
                self._version_N[these] = _hash_versions(table)
                first += piece.n_sources
            for piece in plan.redone:
                table = read_piece(store, piece, ["ordinal", "size", "etag", "mtime_ns", "attempt"])
                ordinals = table["ordinal"].to_numpy()
                self._version_N[ordinals] = _hash_versions(table)
                self.attempt_N[ordinals] = table["attempt"].to_numpy()
            for piece in plan.dropped:
                self.live_N[read_piece(store, piece, ["ordinal"])["ordinal"].to_numpy()] = False
        # Stable: of a name that is there several times, the ordinals stay in their order.
        order_N = np.argsort(name_N, kind="stable")
        self._ordinal_N = order_N if self.live_N.all() else order_N[self.live_N[order_N]]
        # One after the other, and the unsorted one goes: of so many numbers no more copies than must be.
        self._name_N = name_N[self._ordinal_N]
        del name_N, order_N
        self._check_N = check_N[self._ordinal_N]
        del check_N
        self._used_N = np.zeros(len(self._ordinal_N), np.int32)

    def match(self, batch: pa.RecordBatch) -> tuple[Ids, Mask]:
        """The ordinals of listed sources, `UNKNOWN` for new ones, and which are known in another version."""
        n = batch.num_rows
        ordinals_B = np.full(n, UNKNOWN, np.int64)
        if not len(self._ordinal_N) or not n:
            return ordinals_B, np.zeros(n, bool)
        name_B, check_B = _hash_uris(batch)
        first_B = np.searchsorted(self._name_N, name_B, side="left")
        held_B = np.minimum(first_B, len(self._ordinal_N) - 1)
        known_B = self._is_at(held_B, name_B, check_B)
        if len(np.unique(name_B)) < n:  # some names come twice, and take one place after the other
            for at in np.flatnonzero(known_B).tolist():
                one = slice(at, at + 1)
                ordinals_B[at] = self._take(held_B[one], name_B[one], check_B[one])[0]
        else:
            ordinals_B[known_B] = self._take(held_B[known_B], name_B[known_B], check_B[known_B])
        found_B = np.flatnonzero(ordinals_B != UNKNOWN)
        self.seen_N[ordinals_B[found_B]] = True
        changed_B = np.zeros(n, bool)
        changed_B[found_B] = self._version_N[ordinals_B[found_B]] != _hash_versions(batch)[found_B]
        return ordinals_B, changed_B

    def _is_at(self, places_B: Ids, name_B: Hashes, check_B: Hashes) -> Mask:
        """Whether these names are at these places.

        Two URLs that agree in the first 64 bits of their hashes are not expected in this universe's lifetime of data
        lakes, yet losing an image to it would be silent: the second 64 bits are compared as well.
        """
        are_B: Mask = (self._name_N[places_B] == name_B) & (self._check_N[places_B] == check_B)
        return are_B

    def _take(self, first_B: Ids, name_B: Hashes, check_B: Hashes) -> Ids:
        """The next ordinal of each of some distinct names, given where each begins; `UNKNOWN` once all are used."""
        places_B = first_B + self._used_N[first_B]
        held_B = np.minimum(places_B, len(self._ordinal_N) - 1)
        left_B = (places_B == held_B) & self._is_at(held_B, name_B, check_B)
        self._used_N[first_B[left_B]] += 1
        return np.where(left_B, self._ordinal_N[held_B], UNKNOWN)


def _hash_uris(table: pa.Table | pa.RecordBatch) -> tuple[Hashes, Hashes]:
    """Two hashes of each name."""
    digests = b"".join(
        hashlib.blake2b(uri.encode(), digest_size=16).digest() for uri in table.column("uri").to_pylist()
    )
    hashes_N2 = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    return hashes_N2[:, 0], hashes_N2[:, 1]


def _hash_versions(table: pa.Table | pa.RecordBatch) -> Hashes:
    """The etag decides; where the store has none, size and modification time do."""
    rows = zip(
        table.column("etag").to_pylist(),
        table.column("size").to_pylist(),
        table.column("mtime_ns").to_pylist(),
        strict=True,
    )
    digests = b"".join(
        hashlib.blake2b((etag if etag is not None else f"{size}/{mtime_ns}").encode(), digest_size=8).digest()
        for etag, size, mtime_ns in rows
    )
    return np.frombuffer(digests, np.uint64)
