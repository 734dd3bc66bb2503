"""The column `embedding`: unit vectors as the table holds them, and back.

Little-endian float16 in fixed_size_binary: read several times to many times faster than a list of the same numbers.

Shape legend: N rows, D embedding width.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DTYPE = "<f2"

Vectors = npt.NDArray[np.float16]


def embedding_field(dim: int) -> pa.Field:
    """The column's field; its metadata tells readers without zsic how to read it."""
    return pa.field("embedding", pa.binary(2 * dim), metadata={"dtype": DTYPE, "dim": str(dim)})


def to_column(image_ND: Vectors, valid_N: npt.NDArray[np.bool_]) -> pa.FixedSizeBinaryArray:
    """Make the column of vectors in C order, null where not valid; the vectors are not copied."""
    n, dim = image_ND.shape
    buffers = [pa.array(valid_N).buffers()[1], pa.py_buffer(image_ND)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * dim), n, buffers)


def from_column(column: pa.FixedSizeBinaryArray) -> Vectors:
    """Vectors [N, D] of one chunk of the column, read-only and not copied; rows that are null hold anything."""
    width = column.type.byte_width
    data: Any = column.buffers()[1]
    flat = np.frombuffer(data, DTYPE, len(column) * width // 2, column.offset * width)
    return flat.reshape(len(column), width // 2)


class Embeddings:
    """The column of a block while it is filled, batch by batch; rows that are never entered stay null."""

    def __init__(self, n_rows: int, dim: int) -> None:
        self._image_ND: Vectors = np.zeros((n_rows, dim), DTYPE)
        self._valid_N = np.zeros(n_rows, bool)

    def enter(self, rows_B: npt.NDArray[np.int64], image_BD: npt.NDArray[np.float32]) -> None:
        """Enter the vectors of the rows `rows_B` of the block."""
        self._image_ND[rows_B] = image_BD
        self._valid_N[rows_B] = True

    def to_array(self) -> pa.FixedSizeBinaryArray:
        """The column; the vectors are not copied."""
        return to_column(self._image_ND, self._valid_N)
