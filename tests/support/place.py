"""Somewhere to put objects: a folder on disk or a bucket, alike for tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsic.core.spec import StoreSpec


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
