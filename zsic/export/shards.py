"""Images in tar shards, as WebDataset reads them: three members each, of one name.

    DIR/shard-000000.tar              3-12.jpg, 3-12.cls (place of the label in the record), 3-12.json
    DIR/_zsic/shard-000000.json       up to which row it goes, and which rows were not to be had

A shard is put whole, and its note after it.  Notes tell what is done without a look into shards: a run goes on behind
the last note, after a second try of what earlier ones could not have; that goes into shards of its own.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zsic.core.errors import StoreError
from zsic.core.fingerprint import canonical
from zsic.core.outcome import Failure
from zsic.core.schema import INDEX_BITS
from zsic.export.names import ending_of
from zsic.export.tally import Labelled, Tally
from zsic.export.tree import NO_IMAGE
from zsic.storage.originals import Originals
from zsic.storage.store import Store

MAX_ROWS = 100_000
"""Of one shard, however small they are: so many ids a note may name."""
NOTES = "_zsic"
_BLOCK = 512

Ids = npt.NDArray[np.int64]


def write_shards(
    rows: Iterable[Labelled],
    originals: Originals,
    target: Store,
    labels: Mapping[str, int],
    tally: Tally,
    *,
    shard_bytes: int,
) -> int:
    """Write the rows' images into shards of at most `shard_bytes`, or one image; returns how many shards there are.

    Rows come in order of id.  The same rows, with the same of them missing, make the same shards.  Holds one shard.
    Raises `StoreError`.
    """
    done = _read_notes(target)

    def pending() -> Iterator[Labelled]:
        for row in rows:
            if done.holds(row.id):
                tally.add_before(1)
            else:
                yield row

    shard = _Shard(done.n_shards, done.last_id)
    for row, data in originals.read(pending()):
        members = _make_members(row, data, labels) if isinstance(data, bytes) else data
        size = 0 if isinstance(members, Failure) else sum(map(_size_in_tar, members.values()))
        full = shard.n_images and shard.n_bytes + size + tarfile.RECORDSIZE > shard_bytes
        if full or shard.n_rows >= MAX_ROWS:
            shard = _close(shard, target)
        if isinstance(members, Failure):
            shard.miss(row)
            tally.fail(row, members)
        else:
            shard.add(row, members)
            assert isinstance(data, bytes)
            tally.add(len(data))
    return _close(shard, target).number


@dataclass
class _Done:
    """What the notes of earlier runs tell."""

    n_shards: int = 0
    last_id: int = -1
    missing_N: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows up to `last_id` that no shard has, sorted."""

    def holds(self, row_id: int) -> bool:
        if row_id > self.last_id:
            return False
        at = int(np.searchsorted(self.missing_N, row_id))
        return not (at < len(self.missing_N) and int(self.missing_N[at]) == row_id)


def _read_notes(target: Store) -> _Done:
    done = _Done()
    while (data := target.read(_note_name(done.n_shards))) is not None:
        note = json.loads(data)
        found_N, missing_N = (np.array(note[name], np.int64) for name in ("found", "missing"))
        done.missing_N = np.union1d(np.setdiff1d(done.missing_N, found_N), missing_N)
        done.last_id = note["last_id"]
        done.n_shards += 1
    return done


class _Shard:
    """A shard that is being filled."""

    def __init__(self, number: int, begun_at: int) -> None:
        self.number = number
        self.begun_at = begun_at
        """Rows up to this one have been tried before."""
        self.last_id = begun_at
        self.n_rows = 0
        """Those that are missing included."""
        self.n_images = 0
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._found: list[int] = []
        self._missing: list[int] = []

    @property
    def n_bytes(self) -> int:
        return self._buffer.tell()

    def add(self, row: Labelled, members: Mapping[str, bytes]) -> None:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))
        self.n_images += 1
        self._pass(row, self._found if row.id <= self.begun_at else None)

    def miss(self, row: Labelled) -> None:
        self._pass(row, self._missing)

    def _pass(self, row: Labelled, ids: list[int] | None) -> None:
        self.n_rows += 1
        self.last_id = max(self.last_id, row.id)
        if ids is not None:
            ids.append(row.id)

    def to_bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def to_note(self) -> bytes:
        return canonical(
            {"last_id": self.last_id, "n_images": self.n_images, "found": self._found, "missing": self._missing}
        )


def _close(shard: _Shard, target: Store) -> _Shard:
    """Put a shard, then its note; gives the next one."""
    if not shard.n_images and shard.last_id == shard.begun_at:
        # Nothing new: what was missing still is.
        return _Shard(shard.number, shard.begun_at)
    if shard.n_images:
        name, data = f"shard-{shard.number:06d}.tar", shard.to_bytes()
        if not target.create(name, data):
            # No note speaks of it: a run that was stopped left it, when other images were to be had.
            target.delete(name)
            if not target.create(name, data):
                raise StoreError(f"--output: {target.uri}/{name} is written by somebody else at the same time")
    if not target.create(_note_name(shard.number), shard.to_note()):
        raise StoreError(f"--output: another export into {target.uri} is at work; run this command again")
    return _Shard(shard.number + 1, shard.last_id)


def _note_name(number: int) -> str:
    return f"{NOTES}/shard-{number:06d}.json"


def _make_members(row: Labelled, data: bytes, labels: Mapping[str, int]) -> dict[str, bytes] | Failure:
    """The members of one sample: image, number of the label, and what the row says."""
    ending = ending_of(data)
    if ending is None:
        return NO_IMAGE
    name = f"{row.id >> INDEX_BITS}-{row.id & ((1 << INDEX_BITS) - 1)}"
    said = {"label": row.label, "score": row.score, "uri": row.uri, "key": row.key, "id": row.id}
    return {
        f"{name}{ending}": data,
        f"{name}.cls": str(labels[row.label]).encode(),
        f"{name}.json": json.dumps(said, ensure_ascii=False).encode(),
    }


def _size_in_tar(data: bytes) -> int:
    return _BLOCK + -(-len(data) // _BLOCK) * _BLOCK
