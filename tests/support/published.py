"""Outputs over real sources, published by the commit protocol itself, with answers that a test decides; no Ray."""

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from support.place import Place
from support.runs import LABELS, draw
from zsic.core.embedding import embedding_field
from zsic.core.schema import INDEX_BITS, SOURCE_TOTAL, output_schema
from zsic.core.spec import JobSpec, SourceSpec, StoreSpec, make_spec
from zsic.pipeline.job import prepare
from zsic.storage.objects import Objects
from zsic.storage.origin import Origin
from zsic.storage.output import Output
from zsic.storage.part import read_columns
from zsic.storage.rows import RawRow, read_rows
from zsic.storage.slices import cut
from zsic.storage.sources import list_sources
from zsic.storage.store import Store, open_store


@dataclass(frozen=True)
class Reply:
    """What a test says that the model said."""

    label: str | None
    score: float = 0.5
    margin: float = 0.1
    vector_D: Any = None


Answer = Callable[[RawRow], Reply]


def by_index(row: RawRow) -> Reply:
    """Labels in turn, and scores that fall."""
    index = row.id & ((1 << INDEX_BITS) - 1)
    return Reply(LABELS[(index + (row.id >> INDEX_BITS)) % len(LABELS)], 1 / (2 + index))


def publish_job(spec: JobSpec, answer: Answer = by_index) -> None:
    """Publish what a job would write, for a test of what the same job does next."""
    job = prepare(spec)
    work = job.begin(job.listing, lambda _text: None)
    assert work.plan is not None
    assert work.lease is not None
    rows = [_row(each, answer(each) if each.data else None) for each in _read(job.output.store, spec, work.plan)]
    table = pa.Table.from_pylist(rows, output_schema().append(pa.field(SOURCE_TOTAL, pa.int32())))
    job.output.write_part(work.plan, table, {"model": "demo", "labels": LABELS, "job": job.fields}, "t-000000")
    job.output.publish(work.plan, job.output.claim(job.fields))
    work.lease.end()


def publish(
    output: str,
    sources: str | Sequence[str],
    answer: Answer = by_index,
    *,
    store: StoreSpec | None = None,
    rows_per_part: int = 7,
    dim: int | None = None,
    set_name: str | None = None,
    model: str = "demo",
    digest: str = "",
    backwards: bool = False,
    **source: Any,
) -> tuple[Store, list[dict[str, Any]]]:
    """Take up what is new in the sources and publish it; gives the store, and the rows with what `answer` was given.

    `backwards` writes the parts in another order than that of the rows in them.
    """
    store = store or StoreSpec()
    spec = make_spec(
        {
            "source": {"uris": sources, **source},
            "labels": LABELS,
            "output": output,
            "store": store.model_dump(),
        }
    )
    opened = open_store(output, store)
    out = Output(opened)
    fields = {"model": {"digest": digest, "dtype": "float32"}, "decode": spec.decode.model_dump()}
    fields["output"] = {"embeddings": dim is not None, "keep_columns": []}
    work = out.begin(list_sources(spec.source, Objects(store)), fields, spec.source.model_dump(mode="json"))
    assert work.plan is not None
    assert work.lease is not None
    raw = _read(opened, spec, work.plan)
    rows = [_row(each, answer(each) if each.data else None) for each in raw]
    schema = output_schema()
    schema = schema.append(embedding_field(dim)) if dim is not None else schema
    metadata = {"model": model, "revision": None, "labels": LABELS, "job": fields}
    # By turns, so that the ids of one part lie between those of another.
    n_parts = -(-len(rows) // rows_per_part)
    numbers = range(n_parts)
    for number in reversed(numbers) if backwards else numbers:
        table = pa.Table.from_pylist(rows[number::n_parts], schema.append(pa.field(SOURCE_TOTAL, pa.int32())))
        if set_name is not None:
            answers = ("label", "score", "predictions")
            table = table.rename_columns([f"{n}_{set_name}" if n in answers else n for n in table.column_names])
        out.write_part(work.plan, table, metadata, f"t-{number:06d}")
    out.publish(work.plan, "f")
    work.lease.end()
    return opened, rows


def relabel(output: str, target: str, label: str, *, store: StoreSpec | None = None) -> Store:
    """Publish the rows of an output with embeddings once more, in another output, all with one label."""
    store = store or StoreSpec()
    source = SourceSpec(uris=(output,), format="output")
    origin = Origin.open(source, store)
    opened = open_store(target, store)
    out = Output(opened)
    work = out.begin(origin, {**origin.fields, "labels": label}, source.model_dump(mode="json"))
    assert work.plan is not None
    assert work.lease is not None
    for ordinal, part in enumerate(origin.snapshot.parts):
        table = read_columns(origin.store, part.name, [field.name for field in output_schema(embedding_dim=1)])
        n = table.num_rows
        totals = pa.array([None] * (n - 1) + [n], pa.int32())
        changed = {
            "id": pa.array([ordinal << INDEX_BITS | index for index in range(n)], pa.int64()),
            "label": pa.array([None if each is None else label for each in table["label"].to_pylist()]),
        }
        for name, column in changed.items():
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        table = table.append_column(pa.field(SOURCE_TOTAL, pa.int32()), totals)
        out.write_part(work.plan, table, {"model": origin.model, "job": dict(origin.fields)}, f"t-{ordinal:06d}")
    out.publish(work.plan, "f")
    work.lease.end()
    return opened


def _read(store: Store, spec: JobSpec, plan: Any) -> list[RawRow]:
    slices = cut(store, plan, Output(store).read_ledger(plan), images_per_slice=10)
    return [row for piece in slices for row in read_rows(store, Objects(spec.store), spec, piece)]


def _row(raw: RawRow, reply: Reply | None) -> dict[str, Any]:
    predictions = None
    if reply is not None:
        best = reply.label or "rejected"
        entries = [(best, reply.score), ("another", reply.score - reply.margin)]
        predictions = [dict(zip(("label", "score", "similarity"), (*each, 0.1), strict=True)) for each in entries]
    vector_D = None if reply is None or reply.vector_D is None else np.asarray(reply.vector_D, "<f2").tobytes()
    total = raw.source_total
    if raw.key is None and raw.id & ((1 << INDEX_BITS) - 1) == 0 and total is None:
        total = 1
    return {
        "id": raw.id,
        "uri": raw.uri,
        "key": raw.key,
        "outcome": str(raw.failure.outcome) if raw.failure is not None else "ok" if raw.data else "empty",
        "detail": None if raw.failure is None else raw.failure.detail,
        "width": None,
        "height": None,
        "label": reply.label if reply else None,
        "score": reply.score if reply else None,
        "predictions": predictions,
        "embedding": vector_D,
        SOURCE_TOTAL: total,
        "data": raw.data,
    }


@dataclass
class Lake:
    """Where everything is, and what the output's rows are."""

    place: Place
    store: Store
    rows: list[dict[str, Any]]

    @property
    def output(self) -> str:
        return self.place.at("out")

    def images(self) -> dict[int, bytes]:
        """The bytes of each row that has an answer."""
        return {row["id"]: row["data"] for row in self.rows if row["label"] is not None}


def tar_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def fill(place: Place) -> None:
    """Loose images, two tars, one of which has a name twice and a broken image, and a Parquet file."""
    for number in range(5):
        place.put(f"in/loose/{number}.jpg", draw(number))
    place.put("in/a.tar", tar_of(("x.jpg", draw(10)), ("x.jpg", draw(11)), ("d/x.jpg", draw(12)), ("e.jpg", b"")))
    place.put("in/b.tar", tar_of(*((f"{number}.wrong", draw(number)) for number in range(20, 30))))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [draw(number) for number in range(30, 38)]}), buffer, row_group_size=3)
    place.put("in/c.parquet", buffer.getvalue())
