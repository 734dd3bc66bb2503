"""New answers for rows that keep their embedding: no image is read, and no image tower is needed.

Shape legend: N rows of a block, B rows of a batch, D embedding width.
"""

import numpy as np
import pyarrow as pa
import torch

from zsic.core.embedding import from_column
from zsic.models.heads import Heads

ROWS_AT_ONCE = 4096
"""Few enough for their float32 vectors to stay in a CPU's caches."""


def relabel(block: pa.Table, heads: Heads, *, rows_at_once: int = ROWS_AT_ONCE) -> dict[str, pa.Array]:
    """Give the columns of the heads' answers to a block of an output, from its column `embedding`.

    Rows without an embedding have no answer; the order stays.
    """
    answers = heads.begin(block.num_rows)
    # Torch knows no memory that must not be written to, as Arrow's is: so rows are copied, to where the last ones were.
    staged_ND = torch.empty((rows_at_once, block["embedding"].type.byte_width // 2), dtype=torch.float16)
    begin = 0
    for batch in block.select(["embedding"]).to_batches(max_chunksize=rows_at_once):
        column = batch.column(0)
        image_ND = from_column(column)
        rows_N = np.arange(begin, begin + len(column))
        if column.null_count:
            valid_N = column.is_valid().to_numpy(zero_copy_only=False)
            image_ND, rows_N = image_ND[valid_N], rows_N[valid_N]
        image_BD = staged_ND[: len(image_ND)]
        image_BD.numpy()[:] = image_ND
        for each, verdict in zip(answers, heads.judge(image_BD), strict=True):
            each.enter(rows_N, verdict)
        begin += len(column)
    return {name: array for each in answers for name, array in each.to_arrays().items()}
