"""What a source is once it is listed, and what its readers give for each image in it."""

from dataclasses import dataclass

import pyarrow as pa

from zsic.core.outcome import Failure
from zsic.storage.access import ObjectInfo
from zsic.storage.kinds import Kind
from zsic.storage.plan import SOURCE_COLUMNS

SOURCE_SCHEMA = pa.schema(SOURCE_COLUMNS)
"""Columns of a listing."""


@dataclass(frozen=True, slots=True)
class Source:
    """One row of a listing: an image, or a shard of many."""

    uri: str
    kind: Kind
    size: int | None = None
    etag: str | None = None
    mtime_ns: int | None = None
    columns: str | None = None
    """The kept columns of a manifest's row, as the text of a JSON object."""

    @property
    def info(self) -> ObjectInfo:
        """The version of the object that was listed."""
        return ObjectInfo(self.uri, self.size, self.etag, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a source, or the reason why there is none: either `data` or `failure` is set."""

    index: int
    """Position within the source, from 0; the same each time the same version is read."""
    key: str | None
    """Member name in a shard, row number in a Parquet file, time in a video; None for a loose image and for a failed
    shard."""
    data: bytes | None
    failure: Failure | None = None
    columns: str | None = None
    """The kept columns, as the text of a JSON object."""
    n_bytes: int | None = None
    """What the source needed for it, where that is not the length of `data`."""


@dataclass(frozen=True, slots=True)
class End:
    """Comes last from every reader: how many samples the source has, skipped ones included."""

    total: int
    failure: Failure | None = None
    """Why the source was not read to its end; the last sample stands for the rest of it."""
