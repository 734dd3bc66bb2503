"""Three nights of a lake that grows and changes, on an S3 server: images in shards and in a Delta table of names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pyarrow as pa
import pytest
import s3fs
from deltalake import DeltaTable, write_deltalake
from support.runs import draw, write_shard

from zsic.core.errors import SpecError
from zsic.core.spec import JobSpec, StoreSpec
from zsic.pipeline.run import run
from zsic.pipeline.summary import RunSummary
from zsic.storage.delta import storage_options
from zsic.storage.snapshot import last_snapshot, read_published
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

COLUMNS = ["id", "uri", "key", "outcome", "label", "score"]


class Lake:
    """A bucket with photographs, a Delta table that names some of them, and the output."""

    def __init__(self, endpoint: str, bucket: str, folder: Path) -> None:
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.bucket, self.folder = bucket, folder
        self.store = StoreSpec(s3_endpoint_url=endpoint)
        self.out = f"s3://{bucket}/labelled"
        self.options = storage_options(self.out, self.store)

    def put(self, name: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=data)
        return f"s3://{self.bucket}/{name}"

    def put_shard(self, name: str, numbers: range) -> None:
        self.put(name, write_shard(self.folder / "shard.tar", numbers).read_bytes())

    def append(self, *uris: str) -> None:
        """New rows of the table of names."""
        rows = pa.table({"uri": list(uris), "owner": ["ann"] * len(uris)})
        write_deltalake(f"s3://{self.bucket}/names", rows, mode="append", storage_options=self.options)

    def check(self, n_rows: int) -> list[dict[str, Any]]:
        """The output to all its readers: each row once, and the same."""
        store = open_store(self.out, self.store)
        snapshot = last_snapshot(store)
        assert snapshot is not None
        assert list(find_differences(store)) == []
        published = pa.concat_tables(read_published(store, part, COLUMNS)[1] for part in snapshot.parts)
        rows: list[dict[str, Any]] = published.sort_by("id").to_pylist()

        table = DeltaTable(self.out, storage_options=self.options)
        assert table.to_pyarrow_table(columns=COLUMNS).sort_by("id").to_pylist() == rows

        # DuckDB's own extension for Delta has to be fetched; its files are those of the log.
        connection = duckdb.connect()
        connection.register_filesystem(s3fs.S3FileSystem(endpoint_url=self.store.s3_endpoint_url))
        files = [str(uri) for uri in table.file_uris()]
        read = connection.execute(f"select {', '.join(COLUMNS)} from read_parquet({files!r}) order by id").fetchall()
        assert [dict(zip(COLUMNS, row, strict=True)) for row in read] == rows

        assert (
            len({row["id"] for row in rows}) == len({(row["uri"], row["key"]) for row in rows}) == len(rows) == n_rows
        )
        return rows


def outcome(summary: RunSummary) -> tuple[int, int, int, int, int]:
    """Sources and rows of the increment, sources that changed, rows that went, rows in all."""
    return (
        summary.n_sources,
        summary.n_rows,
        summary.n_redone,
        summary.n_superseded,
        summary.n_rows_in_all,
    )


def test_three_nights_of_a_lake(
    spec_for: Callable[..., JobSpec],
    s3_bucket: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lake = Lake(*s3_bucket, tmp_path)
    shards, names = f"s3://{lake.bucket}/photos/*.tar", f"s3://{lake.bucket}/names"
    loose = [lake.put(f"loose/{number}.img", draw(100 + number)) for number in range(6)]
    store = {"s3_endpoint_url": lake.store.s3_endpoint_url}

    def night(**fields: object) -> RunSummary:
        return run(spec_for([shards, names], {"uri": lake.out, "publish": "delta"}, store=store, **fields))

    lake.put_shard("photos/a.tar", range(8))
    lake.append(*loose[:2])
    assert outcome(night()) == (3, 10, 0, 0, 10)
    first = lake.check(10)

    # A new shard, a shard of other pictures under an old name, new rows in the table; the rest is left alone.
    lake.put_shard("photos/b.tar", range(20, 25))
    lake.put_shard("photos/a.tar", range(40, 47))
    lake.append(*loose[2:5])
    assert outcome(night()) == (5, 15, 1, 8, 17)
    second = lake.check(17)
    kept = {row["uri"] for row in first if row["uri"] in loose}
    assert [row for row in second if row["uri"] in kept] == [row for row in first if row["uri"] in kept]

    # Nothing new: no image is read, and no Ray started; the table stays as it is.
    with monkeypatch.context() as patched:
        patched.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
        assert night().state == "unchanged"
    assert DeltaTable(lake.out, storage_options=lake.options).version() == 1

    # The third night the names were compacted, and one came; a run that does not ask for the table keeps it in line.
    DeltaTable(names, storage_options=lake.options).optimize.compact()
    lake.append(loose[5])
    summary = run(spec_for([shards, names], lake.out, store=store))
    assert outcome(summary) == (1, 1, 0, 0, 18)
    assert summary.has_delta_table
    third = lake.check(18)
    assert third[:17] == second

    # What is gone is pruned where the listing can tell: by the shards alone.
    lake.client.delete_object(Bucket=lake.bucket, Key="photos/b.tar")
    pruned = {"uris": shards}
    summary = run(spec_for(pruned, lake.out, store=store, update={"prune": True}))
    assert (summary.n_dropped, summary.n_superseded, summary.n_rows_in_all) == (1, 5, 13)
    lake.check(13)
    assert DeltaTable(lake.out, storage_options=lake.options).version() == 3

    # Somebody else's rows in it: said before anything runs.
    write_deltalake(
        lake.out,
        DeltaTable(lake.out, storage_options=lake.options).to_pyarrow_table(),
        mode="overwrite",
        storage_options=lake.options,
    )
    with pytest.raises(SpecError, match=r"output\.publish: .* no parts of the output"):
        night()
