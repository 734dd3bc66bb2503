"""Writing: rows in memory, one immutable Parquet part, one put."""

import hashlib
import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from zsic.core.schema import INDEX_BITS, PREDICTION, SOURCE_TOTAL, with_metadata
from zsic.storage.ledger import read_part
from zsic.storage.plan import Plan
from zsic.storage.store import Store


class PartSink(Datasink[str]):
    """Ray's write stage: each write task makes one part, under a name that a second attempt of the task reuses."""

    def __init__(self, store: Store, plan: Plan, *, metadata: dict[str, object], rows_per_part: int) -> None:
        self._store = store
        self._plan = plan
        self._metadata = metadata
        self._rows_per_part = rows_per_part

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_part

    def get_name(self) -> str:
        return "Parts"

    def write(self, blocks: Iterable[Block], ctx: Any) -> str:
        """Put the part of one task; returns its name."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if not tables:
            return ""
        table = pa.concat_tables(tables).sort_by("id")
        data = to_parquet(table, self._metadata)
        # Ray keeps both over a retry of the task, so the retry finds the name of the first attempt.
        name = f"{self._plan.tag}{ctx.kwargs['write_uuid'][:12]}-{ctx.task_idx:06d}"
        if self._store.create(f"{name}.parquet", data):
            return f"{name}.parquet"
        held = read_part(self._store, f"{name}.parquet", 0)
        if held.ids_N.tolist() == table["id"].to_pylist():
            return f"{name}.parquet"
        # The first attempt was given other rows; both parts stay, and the ledger tells what is there.
        name = f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.parquet"
        self._store.create(name, data)
        return name


def to_parquet(table: pa.Table, metadata: dict[str, object]) -> bytes:
    """Serialise one part: a single row group, zstd, embeddings plain.

    The internal column `source_total` moves into the footer.
    """
    ended = table.filter(pc.is_valid(table[SOURCE_TOTAL]))
    ordinals = pc.shift_right(ended["id"], INDEX_BITS).to_pylist()
    totals = dict(zip(ordinals, ended[SOURCE_TOTAL].to_pylist(), strict=True))
    table = table.drop_columns([SOURCE_TOTAL])
    table = table.cast(
        with_metadata(table.schema, {**metadata, "source_totals": {str(key): totals[key] for key in totals}})
    )
    embedded = "embedding" in table.schema.names
    names = [name for name in table.schema.names if name not in ("embedding", "predictions")]
    # Options go by leaf, and a name that is none is passed over without a word.
    leaves = [*names, *(f"predictions.list.element.{field.name}" for field in PREDICTION)]
    repeated = {"uri", "outcome", "detail", "label", "predictions.list.element.label"}
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=max(table.num_rows, 1),
        compression=dict.fromkeys(leaves, "zstd") | ({"embedding": "none"} if embedded else {}),
        use_dictionary=[leaf for leaf in leaves if leaf in repeated],
        write_statistics=["id", "uri", "outcome", "label", "score"],
    )
    return buffer.getvalue()
