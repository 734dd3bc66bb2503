"""A search from its words to the rows that it finds."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.errors import SpecError
from zsic.core.spec import StoreSpec
from zsic.search.queries import Query, encode_pictures, encode_texts, find_checkpoint
from zsic.search.ranking import ROWS_AT_ONCE, Best, rank_parts
from zsic.storage.store import open_store
from zsic.storage.table import Table, open_table

MAX_TOP = 100_000
_BATCH_ROWS = 16 * ROWS_AT_ONCE
_REMOTE_READERS = 16


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """What is looked for, and where.  Raises `SpecError`."""

    output: str
    """The folder or `s3://` prefix of an output with embeddings."""
    texts: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    model: str | None = None
    """None is the one that the parts name."""
    templates: tuple[str, ...] = ()
    """Sentences with `{}` for the text, or names of template sets; none takes the text as it is."""
    top: int = 20
    set_name: str | None = None
    """Of several label sets, the one whose label is told; None is the first."""
    store: StoreSpec = field(default_factory=StoreSpec)

    def __post_init__(self) -> None:
        if not (self.texts or self.pictures):
            raise SpecError("there is nothing to search for; give a text, or --image")
        if not 1 <= self.top <= MAX_TOP:
            raise SpecError(f"--top is {self.top}; use 1 to {MAX_TOP:,}")


@dataclass(frozen=True, slots=True)
class Hit:
    """One row that was found."""

    rank: int
    similarity: float
    """The cosine."""
    id: int
    uri: str
    key: str | None
    label: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """What one query finds, best first; equally similar rows in order of id."""

    query: str
    hits: tuple[Hit, ...]


def search(spec: SearchSpec) -> list[Found]:
    """Rank all embeddings of an output by each text, then by each picture; exact, and in little memory.

    Raises `SpecError` for an output without embeddings, `ModelError` if the model is not the one that made them,
    `SourceError` for a picture that is none, and `StoreError`.
    """
    table = open_table(open_store(spec.output.rstrip("/"), spec.store))
    checkpoint = find_checkpoint(table, spec.model, spec.store)
    set_name = spec.set_name
    if set_name is None and "label" not in table.schema.names and table.label_sets:
        set_name = table.label_sets[0]
    answers = [table.answer_column(name, set_name) for name in ("label", "score")]
    queries = [
        *encode_texts(spec.texts, spec.templates, checkpoint),
        *encode_pictures(spec.pictures, table, checkpoint),
    ]
    parts = table.snapshot.parts
    readers = [partial(table.read_part, part, ["id", "embedding"], _BATCH_ROWS) for part in parts]
    vectors_QD = np.stack([query.vector_D for query in queries])
    # Of an object store, more threads wait than compute.
    n_threads = max(os.cpu_count() or 1, _REMOTE_READERS if "://" in table.store.uri else 1)
    ranked = rank_parts(readers, vectors_QD, spec.top, n_threads=min(n_threads, len(parts)))
    rows = dict(_read_rows(table, ranked, answers))
    return [_to_found(query, best, rows) for query, best in zip(queries, ranked, strict=True)]


def _read_rows(table: Table, ranked: list[Best], answers: list[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """The other columns of the rows that were found, by id; of the parts alone that have some."""
    part_T = np.concatenate([best.part_T for best in ranked])
    ids_T = np.concatenate([best.ids_T for best in ranked])
    for place in np.unique(part_T).tolist():
        wanted = pa.array(np.unique(ids_T[part_T == place]))
        for batch in table.read_part(table.snapshot.parts[place], ["id", "uri", "key", *answers]):
            found = batch.filter(pc.is_in(batch["id"], wanted)).select(["id", "uri", "key", *answers])
            columns = [column.to_pylist() for column in found.columns]
            for values in zip(*columns, strict=True):
                yield values[0], dict(zip(("id", "uri", "key", "label", "score"), values, strict=True))


def _to_found(query: Query, best: Best, rows: dict[int, dict[str, object]]) -> Found:
    pairs = zip(best.ids_T.tolist(), best.similarity_T.tolist(), strict=True)
    hits = (
        Hit(rank=rank, similarity=similarity, **rows[row_id])  # type: ignore[arg-type]
        for rank, (row_id, similarity) in enumerate(pairs, start=1)
    )
    return Found(query.name, tuple(hits))
