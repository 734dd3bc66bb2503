"""One part: rows of the table in one immutable Parquet object, and what can be counted from it.

OUT/part-00003-1a2b3c4d-<task>.parquet            sequence and digest of the plan that it belongs to
OUT/_zsic/staged/part-...                         until the snapshot exists, where the plan replaces rows
"""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zsic.core.errors import StoreError
from zsic.core.schema import INDEX_BITS, SOURCE_TOTAL, read_metadata, with_metadata
from zsic.storage.store import Store

STAGED = "_zsic/staged"
AGAIN = "again-"
"""In place of a task: a part that a commit has written, of rows that others hold.  No record of work."""
_WITH_STATISTICS = ("id", "uri", "outcome", "label", "score")
_NAME = re.compile(r"part-(\d{5,})-[0-9a-f]{8}-[0-9a-z-]+\.parquet")

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class DamagedPartError(StoreError):
    """An object named like a part is none, or is no longer one."""


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What one part holds, counted from its columns."""

    name: str
    n_bytes: int
    ids_N: Ids
    totals: Mapping[int, int]
    """Rows of the sources, by ordinal, whose last row is in this part."""
    outcomes: Mapping[str, int]


def sequence_of(name: str) -> int | None:
    """The sequence of the plan that a part's name speaks of; None for the name of something else."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def read_part(store: Store, name: str, n_bytes: int, *, place: str | None = None) -> PartFacts:
    """Count the part `name`, which lies at `place` if that is given.

    Raises `DamagedPartError` if it is not a part of zsic's, and `FileNotFoundError` if it is not there.
    """
    totals, table = _read(store, place or name, ["id", "outcome"])
    counts = pc.value_counts(table["outcome"]).to_pylist()
    return PartFacts(
        name=name,
        n_bytes=n_bytes,
        ids_N=table["id"].to_numpy(),
        totals=totals,
        outcomes={entry["values"]: entry["counts"] for entry in counts},
    )


def read_columns(store: Store, name: str, columns: list[str]) -> pa.Table:
    """Read some columns of a part."""
    return _read(store, name, columns)[1]


def read_schema(store: Store, name: str) -> pa.Schema:
    """Read the schema of a part, with what its footer says."""
    with store.open(name) as file:
        return pq.ParquetFile(file).schema_arrow


def to_parquet(table: pa.Table, metadata: Mapping[str, object]) -> bytes:
    """Serialise one part: a single row group, zstd, embeddings plain.

    The internal column `source_total` moves into the footer.
    """
    ended = table.filter(pc.is_valid(table[SOURCE_TOTAL]))
    ordinals = pc.shift_right(ended["id"], INDEX_BITS).to_pylist()
    totals = {str(key): total for key, total in zip(ordinals, ended[SOURCE_TOTAL].to_pylist(), strict=True)}
    table = table.drop_columns([SOURCE_TOTAL])
    return _write(table.cast(with_metadata(table.schema, {**metadata, "source_totals": totals})))


def rewrite_part(store: Store, place: str, kept_N: Mask) -> bytes:
    """Serialise a part again with those of its rows that are kept; it tells the totals whose last row it keeps."""
    totals, table = _read(store, place, None)
    table = table.filter(pa.array(kept_N))
    ids_N = table["id"].to_numpy()
    kept = {
        str(ordinal): total
        for ordinal, total in totals.items()
        if (at := np.searchsorted(ids_N, last := ordinal << INDEX_BITS | total - 1)) < len(ids_N) and ids_N[at] == last
    }
    text = with_metadata(table.schema, {"source_totals": kept}).metadata
    return _write(table.replace_schema_metadata({**(table.schema.metadata or {}), **text}))


def digest_of(data: bytes) -> str:
    """The SHA-256 of some bytes, as `Store.digest` spells it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _read(store: Store, place: str, columns: list[str] | None) -> tuple[dict[int, int], pa.Table]:
    """The totals and some columns (None: all) of a part."""
    try:
        with store.open(place) as file:
            reader = pq.ParquetFile(file, pre_buffer=True)
            totals = read_metadata(reader.schema_arrow, "source_totals")
            table = reader.read(columns, use_threads=False)
    except pa.ArrowException as error:
        raise DamagedPartError(f"{place}: is damaged: {error}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"output: {store.uri}/{place} cannot be read: {error}") from error
    if not isinstance(totals, dict):
        raise DamagedPartError(f"{place}: was not written by zsic")
    return {int(ordinal): total for ordinal, total in totals.items()}, table


def _write(table: pa.Table) -> bytes:
    embedded = "embedding" in table.schema.names
    leaves = [leaf for field in table.schema for leaf in _leaves(field) if field.name != "embedding"]
    # Few values, many times: of the columns of answers, whatever set they are of.
    repeated = [leaf for leaf in leaves if leaf.startswith(("uri", "outcome", "detail", "label", "path"))]
    repeated += [leaf for leaf in leaves if leaf.endswith(".list.element.label")]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=max(table.num_rows, 1),
        compression=dict.fromkeys(leaves, "zstd") | ({"embedding": "none"} if embedded else {}),
        use_dictionary=repeated,
        write_statistics=[leaf for leaf in leaves if "." not in leaf and leaf.startswith(_WITH_STATISTICS)],
    )
    return buffer.getvalue()


def _leaves(field: pa.Field) -> list[str]:
    """The columns that Parquet makes of one; options go by them, and a name that is none is passed over silently."""
    if not pa.types.is_list(field.type):
        return [field.name]
    element = field.type.value_type
    inner = [f".{each.name}" for each in element] if pa.types.is_struct(element) else [""]
    return [f"{field.name}.list.element{each}" for each in inner]
