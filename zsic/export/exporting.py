"""An output's images with their labels, written out to train another model with."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from zsic.core.errors import SpecError
from zsic.core.spec import StoreSpec
from zsic.export.names import name_folders
from zsic.export.order import SortedRows
from zsic.export.selection import Selection, select
from zsic.export.shards import write_shards
from zsic.export.tally import Labelled, Tally
from zsic.export.target import check_record, open_target, put_record
from zsic.export.tree import write_tree
from zsic.storage.objects import Objects
from zsic.storage.originals import Originals
from zsic.storage.snapshot import snapshot_name
from zsic.storage.store import open_store
from zsic.storage.table import Table, open_table

MAX_SHARD_MB = 4_000
"""S3 takes 5 GB in one request, and a shard is held in memory until it is put."""

Form = Literal["imagefolder", "webdataset"]
Watch = Callable[[int, int, int], None]
"""Told after each row: rows so far, rows in all, bytes written."""


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """What is to be exported, where to, and how.  Raises `SpecError`."""

    output: str
    """The folder or `s3://` prefix of the classified images."""
    target: str
    form: Form
    selection: Selection = field(default_factory=Selection)
    shard_mb: int = 512
    """Largest shard of a WebDataset, in millions of bytes."""
    store: StoreSpec = field(default_factory=StoreSpec)

    def __post_init__(self) -> None:
        if self.form not in ("imagefolder", "webdataset"):
            raise SpecError(f"--format is {self.form!r}; use imagefolder or webdataset")
        if not 1 <= self.shard_mb <= MAX_SHARD_MB:
            raise SpecError(f"--shard-mb is {self.shard_mb}; use 1 to {MAX_SHARD_MB:,}")
        if not self.target:
            raise SpecError("--output is empty; name a folder or s3:// prefix")


@dataclass(frozen=True, slots=True)
class Exported:
    """What there is now, and what one run did for it."""

    target: str
    n_by_label: dict[str, int]
    """Chosen rows, most first."""
    n_written: int
    n_before: int
    """Images that earlier runs had written."""
    n_bytes: int
    """Of the images that this run wrote."""
    n_shards: int | None
    """In all; None where there are none."""
    failed: dict[str, int]
    """Rows whose image was not to be had, by outcome."""
    named: tuple[str, ...]
    """The first of them."""

    @property
    def n_chosen(self) -> int:
        """Rows that were chosen."""
        return sum(self.n_by_label.values())


def export(spec: ExportSpec, watch: Watch = lambda n_rows, n_all, n_bytes: None) -> Exported:
    """Copy the chosen images, byte by byte, to folders or shards; the same call goes on where another one stopped.

    Images that are not to be had are counted, and tried again by the next call.  Memory does not grow with the number
    of rows, but for 8 bytes an image that is there already; their order is made on the disk, in `TMPDIR`.
    Raises `SpecError`, `MismatchError` if the folder holds another export, and `StoreError`.
    """
    source = open_store(spec.output.rstrip("/"), spec.store)
    table = open_table(source)
    target = open_target(spec.target.rstrip("/"), spec.store, as_tree=spec.form == "imagefolder")
    if f"{target.uri}/".startswith(f"{source.uri}/"):
        raise SpecError(f"--output: {spec.target} is the output itself, or in it; choose another folder")
    fields = _describe(spec, table)
    check_record(target, fields)
    with tempfile.TemporaryDirectory(prefix="zsic-export-") as folder:
        rows = SortedRows(Path(folder))
        n_by_label: Counter[str] = Counter()
        originals = Originals(source, Objects(spec.store))
        for batch in select(table, spec.selection):
            rows.add(batch.append_column("place", originals.place(batch)))
            for entry in pc.value_counts(batch["label"]).to_pylist():
                n_by_label[entry["values"]] += entry["counts"]
        if not n_by_label:
            raise SpecError(f"{spec.output}: none of its {table.snapshot.n_rows:,} rows is chosen; ask for less")
        n_all = n_by_label.total()
        tally = Tally(lambda n_rows, n_bytes: watch(n_rows, n_all, n_bytes))
        n_shards = None
        if spec.form == "imagefolder":
            folders = name_folders(n_by_label)
            put_record(target, fields, {folder: label for label, folder in folders.items()})
            write_tree(_to_rows(rows), originals, target, folders, tally)
        else:
            labels = sorted(n_by_label)
            put_record(target, fields, labels)
            places = {label: place for place, label in enumerate(labels)}
            shard_bytes = spec.shard_mb * 1_000_000
            n_shards = write_shards(_to_rows(rows), originals, target, places, tally, shard_bytes=shard_bytes)
    return Exported(
        target=target.uri,
        n_by_label=dict(sorted(n_by_label.items(), key=lambda entry: (-entry[1], entry[0]))),
        n_written=tally.n_written,
        n_before=tally.n_before,
        n_bytes=tally.n_bytes,
        n_shards=n_shards,
        failed=dict(tally.failed.most_common()),
        named=tuple(tally.named),
    )


def _describe(spec: ExportSpec, table: Table) -> dict[str, object]:
    """What makes one export another: the published table, and what is chosen of it, how."""
    chosen = spec.selection
    snapshot = table.store.read(snapshot_name(table.snapshot.sequence)) or b""
    return {
        "fingerprint": table.snapshot.fingerprint,
        "snapshot": table.snapshot.sequence,
        "snapshot_digest": hashlib.sha256(snapshot).hexdigest(),
        "format": spec.form,
        "set": chosen.set_name,
        "min_score": chosen.min_score,
        "min_margin": chosen.min_margin,
        "labels_only": sorted(chosen.labels),
        "per_label": chosen.per_label,
        "shard_mb": spec.shard_mb if spec.form == "webdataset" else None,
    }


def _to_rows(rows: SortedRows) -> Iterator[Labelled]:
    for table in rows.read():
        columns = (table[name].to_pylist() for name in ("id", "uri", "key", "label", "score"))
        for values in zip(*columns, strict=True):
            yield Labelled(*values)
