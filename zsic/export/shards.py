"""Images in tar shards, as WebDataset reads them: three members each, of one name.

    DIR/shard-000000.tar              3-12.jpg, 3-12.cls (place of the label in the record), 3-12.json
    DIR/_zsic/shard-000000.parquet    the ids of its rows

A shard is put whole, and its note after it.  Notes tell what is done without a look into shards: a run goes on with the
rows that no note has, be they those behind the last or those that were not to be had before.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from zsic.core.errors import StoreError
from zsic.core.outcome import Failure
from zsic.core.schema import INDEX_BITS
from zsic.export.names import ending_of
from zsic.export.tally import Labelled, Tally
from zsic.export.tree import NO_IMAGE
from zsic.storage.originals import Originals
from zsic.storage.store import Store

MAX_IMAGES = 100_000
"""Of one shard, however small they are."""
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

    Rows come in the order of `Originals.place`.  The same rows, with the same of them missing, make the same shards.
    Holds one shard, and 8 bytes for each image that is there.  Raises `StoreError`.
    """
    n_before, done_N = _read_notes(target)
    shard = _Shard(n_before)
    for row, data in originals.read(tally.pass_over(rows, done_N)):
        members = _make_members(row, data, labels) if isinstance(data, bytes) else data
        if isinstance(members, Failure):
            tally.fail(row, members)
            continue
        size = sum(map(_size_in_tar, members.values())) + tarfile.RECORDSIZE
        if shard.ids and (shard.n_bytes + size > shard_bytes or len(shard.ids) == MAX_IMAGES):
            shard = _close(shard, target)
        shard.add(row, members)
        assert isinstance(data, bytes)
        tally.add(len(data))
    return _close(shard, target).number if shard.ids else shard.number


def _read_notes(target: Store) -> tuple[int, Ids]:
    """How many shards there are, and the ids of the rows in them, sorted."""
    found = [np.empty(0, np.int64)]
    while (data := target.read(_note_name(len(found) - 1))) is not None:
        found.append(pq.read_table(io.BytesIO(data), columns=["id"])["id"].to_numpy())
    return len(found) - 1, np.sort(np.concatenate(found))


class _Shard:
    """A shard that is being filled."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[int] = []
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def n_bytes(self) -> int:
        return self._buffer.tell()

    def add(self, row: Labelled, members: Mapping[str, bytes]) -> None:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))
        self.ids.append(row.id)

    def to_bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def to_note(self) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(
            pa.table({"id": pa.array(self.ids, pa.int64())}), buffer, use_dictionary=False, compression="zstd"
        )
        return buffer.getvalue()


def _close(shard: _Shard, target: Store) -> _Shard:
    """Put a shard, then its note; gives the next one."""
    name, data = f"shard-{shard.number:06d}.tar", shard.to_bytes()
    if not target.create(name, data):
        # No note speaks of it: a run that was stopped left it, when other images were to be had.
        target.delete(name)
        if not target.create(name, data):
            raise StoreError(f"--output: {target.uri}/{name} is written by somebody else at the same time")
    if not target.create(_note_name(shard.number), shard.to_note()):
        raise StoreError(f"--output: another export into {target.uri} is at work; run this command again")
    return _Shard(shard.number + 1)


def _note_name(number: int) -> str:
    return f"{NOTES}/shard-{number:06d}.parquet"


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
