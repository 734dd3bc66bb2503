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
