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
    """The sources of earlier plans: some 40 bytes each in memory, whatever their names.

    A name that is listed several times (in a manifest) is as many sources: its n-th place in a listing is its
    n-th ordinal.  So a listing is to be matched once, from its beginning to its end.
    """

    def __init__(self, store: Store, plans: Iterable[Plan]) -> None:
        names: list[Hashes] = []
        versions: list[Hashes] = []
        changes: list[tuple[Ids, Hashes, npt.NDArray[np.int8]]] = []
        gone: list[Ids] = []
        n = 0
        for plan in plans:
            for piece in plan.added:
                table = read_piece(store, piece, ["uri", "size", "etag", "mtime_ns"])
                names.append(_hash_uris(table))
                versions.append(_hash_versions(table))
                n += piece.n_sources
            for piece in plan.redone:
                table = read_piece(store, piece, ["ordinal", "size", "etag", "mtime_ns", "attempt"])
                changes.append((table["ordinal"].to_numpy(), _hash_versions(table), table["attempt"].to_numpy()))
            for piece in plan.dropped:
                gone.append(read_piece(store, piece, ["ordinal"])["ordinal"].to_numpy())
        names_N2 = np.concatenate(names) if names else np.empty((0, 2), np.uint64)
        self._version_N = np.concatenate(versions) if versions else np.empty(0, np.uint64)
        self.attempt_N = np.zeros(n, np.int8)
        """Times that each source was taken up again by itself, by ordinal."""
        for ordinals_N, version_N, attempt_N in changes:
            self._version_N[ordinals_N] = version_N
            self.attempt_N[ordinals_N] = attempt_N
        self.live_N = np.ones(n, bool)
        """Which have not been dropped, by ordinal."""
        for ordinals_N in gone:
            self.live_N[ordinals_N] = False
        self.seen_N = np.zeros(n, bool)
        """Which the listing has held so far, by ordinal."""
        alive_N = np.flatnonzero(self.live_N)
        order_N = np.lexsort((alive_N, names_N2[alive_N, 1], names_N2[alive_N, 0]))
        self._ordinal_N = alive_N[order_N]
        self._names_N2 = names_N2[self._ordinal_N]
        self._used_N = np.zeros(len(self._ordinal_N), np.int32)

    def match(self, batch: pa.RecordBatch) -> tuple[Ids, Mask]:
        """The ordinals of listed sources, `UNKNOWN` for new ones, and which are known in another version."""
        n = batch.num_rows
        ordinals_B = np.full(n, UNKNOWN, np.int64)
        if not len(self._ordinal_N) or not n:
            return ordinals_B, np.zeros(n, bool)
        names_B2 = _hash_uris(batch)
        first_B = np.searchsorted(self._names_N2[:, 0], names_B2[:, 0], side="left")
        held_B = np.minimum(first_B, len(self._ordinal_N) - 1)
        # Two URLs that agree in the first 64 bits of their hashes are not expected in this universe's lifetime
        # of data lakes, yet losing an image to it would be silent: the second 64 bits are compared as well.
        known_B = (self._names_N2[held_B] == names_B2).all(axis=1)
        if len(np.unique(names_B2[:, 0])) < n:  # some names come twice, and take one place after the other
            for at in np.flatnonzero(known_B).tolist():
                ordinals_B[at] = self._take(held_B[at : at + 1], names_B2[at : at + 1])[0]
        else:
            ordinals_B[known_B] = self._take(held_B[known_B], names_B2[known_B])
        found_B = np.flatnonzero(ordinals_B != UNKNOWN)
        self.seen_N[ordinals_B[found_B]] = True
        changed_B = np.zeros(n, bool)
        changed_B[found_B] = self._version_N[ordinals_B[found_B]] != _hash_versions(batch)[found_B]
        return ordinals_B, changed_B

    def _take(self, first_B: Ids, names_B2: Hashes) -> Ids:
        """The next ordinal of each of some distinct names, given where each begins; `UNKNOWN` once all are used."""
        places_B = first_B + self._used_N[first_B]
        held_B = np.minimum(places_B, len(self._ordinal_N) - 1)
        left_B = (places_B == held_B) & (self._names_N2[held_B] == names_B2).all(axis=1)
        self._used_N[first_B[left_B]] += 1
        return np.where(left_B, self._ordinal_N[held_B], UNKNOWN)


def _hash_uris(table: pa.Table | pa.RecordBatch) -> Hashes:
    digests = b"".join(
        hashlib.blake2b(uri.encode(), digest_size=16).digest() for uri in table.column("uri").to_pylist()
    )
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


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
