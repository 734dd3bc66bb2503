"""Rows of two outputs that stand for the same image: the same uri and key.

Neither output is in memory, nor is it sorted: both are dealt out to files by a hash of uri and key, so that equal ones
meet in files of one number, and these are small enough to be joined one after another.

Shape legend: B rows of one batch, P rows of one file, J pairs of one file.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

N_FILES = 64
"""Of each side: of 40 M rows 600,000 in each, some 100 MB in memory."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The rows of one file of either side, and which belong together."""

    output: pa.Table
    against: pa.Table
    output_J: Places
    against_J: Places
    n_repeated: int
    """Rows left out because an earlier one of the same side has their uri and key."""

    @property
    def only_output(self) -> Places:
        """Rows of the output without a partner."""
        return np.setdiff1d(np.arange(len(self.output)), self.output_J)

    @property
    def only_against(self) -> Places:
        """Rows of the other without a partner."""
        return np.setdiff1d(np.arange(len(self.against)), self.against_J)


class Dealer:
    """Files of rows of one side, in a folder that somebody else removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._writers: list[Any] = []

    def __enter__(self) -> Self:
        self._folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, batch: pa.RecordBatch, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Deal out the rows of a batch: their uri and key, and some columns."""
        uris, keys = batch["uri"], batch["key"]
        # Not Python's own hash: it differs from run to run, and so would the examples that are shown.
        digests = b"".join(map(_digest, uris.to_pylist(), keys.to_pylist()))
        hash_B = np.frombuffer(digests, np.int64)
        file_B = hash_B % N_FILES
        order_B = np.argsort(file_B, kind="stable")
        rows = pa.record_batch(
            {"hash": hash_B, "uri": uris, "key": keys, **columns},
            schema=pa.schema(
                [
                    ("hash", pa.int64()),
                    ("uri", pa.string()),
                    ("key", pa.string()),
                    *((name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()),
                ]
            ),
        ).take(pa.array(order_B))
        if not self._writers:
            self._open(rows.schema)
        ends = np.cumsum(np.bincount(file_B, minlength=N_FILES)).tolist()
        for writer, begin, end in zip(self._writers, [0, *ends], ends, strict=False):
            if end > begin:
                writer.write_batch(rows.slice(begin, end - begin))

    def _open(self, schema: pa.Schema) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for number in range(N_FILES):
            file = self._stack.enter_context(pa.OSFile(str(self._folder / f"{number}.arrows"), "wb"))
            self._writers.append(self._stack.enter_context(pa.ipc.new_stream(file, schema, options=options)))


def pair(output: Path, against: Path) -> Iterator[Pairs]:
    """Yield the rows of both sides, file by file, and drop each file after that."""
    for number in range(N_FILES):
        sides = [_read(folder / f"{number}.arrows") for folder in (output, against)]
        yield _join(*sides)


def _digest(uri: str, key: str | None) -> bytes:
    name = uri if key is None else f"{uri}\0{key}"
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8, usedforsecurity=False).digest()


def _read(path: Path) -> pa.Table:
    if not path.exists():
        return pa.table({"hash": pa.array([], pa.int64())})
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        table = reader.read_all()
    path.unlink()
    return table


def _join(output: pa.Table, against: pa.Table) -> Pairs:
    output_hash_U, output_first_U = np.unique(output["hash"].to_numpy(), return_index=True)
    against_hash_U, against_first_U = np.unique(against["hash"].to_numpy(), return_index=True)
    _, output_at_J, against_at_J = np.intersect1d(
        output_hash_U, against_hash_U, assume_unique=True, return_indices=True
    )
    output_J, against_J = output_first_U[output_at_J], against_first_U[against_at_J]
    # Of 40 M rows two different ones have the same hash with a chance of 1 in 20,000; then they are no pair.
    if len(output_J):
        is_same_J = _are_equal(output, against, output_J, against_J)
        output_J, against_J = output_J[is_same_J], against_J[is_same_J]
    n_repeated = len(output) - len(output_hash_U) + len(against) - len(against_hash_U)
    return Pairs(
        output.take(pa.array(np.sort(output_first_U))) if n_repeated else output,
        against.take(pa.array(np.sort(against_first_U))) if n_repeated else against,
        np.searchsorted(np.sort(output_first_U), output_J) if n_repeated else output_J,
        np.searchsorted(np.sort(against_first_U), against_J) if n_repeated else against_J,
        n_repeated,
    )


def _are_equal(output: pa.Table, against: pa.Table, output_J: Places, against_J: Places) -> npt.NDArray[np.bool_]:
    is_same_J = np.ones(len(output_J), bool)
    for name in ("uri", "key"):
        left, right = output[name].take(pa.array(output_J)), against[name].take(pa.array(against_J))
        same = pc.or_(pc.fill_null(pc.equal(left, right), False), pc.and_(pc.is_null(left), pc.is_null(right)))
        is_same_J &= same.to_numpy()
    return is_same_J
