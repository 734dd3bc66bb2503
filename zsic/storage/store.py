"""The output's store: objects that are created whole, once, and never changed; one code for disk and S3.

The protocol needs one strong thing of a store: that creating an object fails when the object exists.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec


class Store(Protocol):
    """Objects by name below one root.  Names use `/`; they are never renamed or overwritten.

    Every method raises `StoreError` when the store fails, and nothing else but what it says.
    """

    uri: str

    def create(self, name: str, data: bytes) -> bool:
        """Put one whole object, atomically, if the name is free.

        Returns whether the stored object is `data`, be it from now or from an earlier attempt whose answer was
        lost; False means that somebody else's object holds the name.
        """

    def read(self, name: str) -> bytes | None:
        """Read a whole object; None if there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open an object for random reads.  Raises `FileNotFoundError` if there is none."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Names and bytes of the objects directly in the folder `prefix`, in order of name; streams."""

    def delete(self, name: str) -> None:
        """Delete an object; nothing happens if there is none."""

    def digest(self, name: str) -> str:
        """Identify the content: `sha256:...` on disk, `etag:...` (which needs no reading) on S3.

        Raises `FileNotFoundError` if there is none.
        """


def open_store(uri: str, spec: StoreSpec) -> Store:
    """Open the store of an output.  Raises `StoreError` for a scheme that the protocol is not proved on."""
    from zsic.storage.disk_store import DiskStore

    scheme, separator, path = uri.partition("://")
    if not separator:
        return DiskStore(Path(uri).expanduser())
    if scheme == "file":
        return DiskStore(Path("/" + path.lstrip("/")))
    if scheme == "s3":
        from zsic.storage.s3_store import S3Store

        return S3Store(uri, spec)
    raise StoreError(
        f"output.uri has the scheme {scheme!r}; outputs live on disk or on s3:// (other stores are sources only)"
    )
