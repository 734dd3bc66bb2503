"""Somewhere to put objects: a folder on disk or a bucket, alike for tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zsic.core.spec import StoreSpec
from zsic.storage.store import Store, open_store

DISK_AND_S3 = ["disk", "s3"]
DISK_FIRST = ["disk", pytest.param("s3", marks=pytest.mark.variant)]
"""Places for tests whose subject is not the store."""
REAL_S3 = pytest.param("real_s3", marks=pytest.mark.real_s3)


@dataclass
class Place:
    """Where a test's objects are, and how they are reached."""

    uri: str
    store: StoreSpec
    s3: Any = None

    def put(self, name: str, data: bytes = b"x") -> str:
        """Create or replace an object, and return its uri."""
        if self.s3 is None:
            path = Path(self.uri, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self.s3.put_object(Bucket=self.bucket, Key=name, Body=data)
        return self.at(name)

    def delete(self, name: str) -> None:
        if self.s3 is None:
            Path(self.uri, name).unlink()
        else:
            self.s3.delete_object(Bucket=self.bucket, Key=name)

    def at(self, name: str) -> str:
        return f"{self.uri}/{name}"

    @property
    def bucket(self) -> str:
        return self.uri.removeprefix("s3://")


def open_empty(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Open an empty output store of the kind that a fixture's parameter names: one of `DISK_AND_S3`."""
    if request.param == "disk":
        return open_store(str(folder / "out"), StoreSpec())
    endpoint, bucket = request.getfixturevalue("s3_bucket")
    return open_store(f"s3://{bucket}/some/out", StoreSpec(s3_endpoint_url=endpoint))


def open_place(request: pytest.FixtureRequest, folder: Path) -> Place:
    """Open an empty place of the kind that a fixture's parameter names: one of `DISK_AND_S3`."""
    if request.param == "disk":
        return Place(str(folder), StoreSpec(attempts=2, timeout_s=10))
    place: Place = request.getfixturevalue("s3_place")
    return place
