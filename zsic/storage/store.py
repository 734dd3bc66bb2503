"""The output's store: objects that are created whole, once, and never changed; one code for disk and S3.

The protocol needs one strong thing of a store: that creating an object fails when the object exists.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec

BODY_ATTEMPTS = 3
DRAFTS = "_zsic/draft"


class Store(Protocol):
    """Objects by name below one root.  Names use `/`; they are never renamed or overwritten."""

    uri: str

    def create(self, name: str, data: bytes) -> bool:
        """Put one whole object, atomically, if the name is free.

        Returns whether the stored object is `data`, be it from now or from an earlier attempt whose answer was
        lost; False means that somebody else's object holds the name.
        """

    def read(self, name: str) -> bytes | None:
        """Read a whole object; None if there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open an object for random reads."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Names and bytes of the objects directly in the folder `prefix`, in order of name; streams."""

    def delete(self, name: str) -> None:
        """Delete an object; nothing happens if there is none."""

    def digest(self, name: str) -> str:
        """Identify the content: `sha256:...` on disk, `etag:...` (which needs no reading) on S3."""


def open_store(uri: str, spec: StoreSpec) -> Store:
    """Open the store of an output.  Raises `StoreError` for a scheme that the protocol is not proved on."""
    scheme, separator, path = uri.partition("://")
    if not separator:
        return DiskStore(Path(uri).expanduser())
    if scheme == "file":
        return DiskStore(Path("/" + path.lstrip("/")))
    if scheme == "s3":
        return S3Store(uri, spec)
    raise StoreError(
        f"output.uri has the scheme {scheme!r}; outputs live on disk or on s3:// (other stores are sources only)"
    )


class DiskStore:
    """A folder on a local or shared disk.

    A new object is written beside its place, flushed to the disk, and linked to its name: readers see all of it
    or nothing, and the link fails if the name is taken.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def create(self, name: str, data: bytes) -> bool:
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.root / DRAFTS / f"{uuid.uuid4().hex}.draft"
            draft.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    _link(draft, path)
                except FileExistsError:
                    return path.read_bytes() == data
                _flush_folder(path.parent)
                return True
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"output: cannot write {path}: {error.strerror or error}") from error

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"output: cannot read {self.root / name}: {error.strerror}") from error

    def open(self, name: str) -> BinaryIO:
        return (self.root / name).open("rb")

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = self.root / prefix
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    (entry.name, entry.stat().st_size)
                    for entry in entries
                    if entry.is_file() and not entry.name.startswith(".")
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, n_bytes in found:
            yield f"{prefix}/{name}".lstrip("/"), n_bytes

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def digest(self, name: str) -> str:
        with (self.root / name).open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name; raises `FileExistsError` if the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # Some network and removable file systems have no hard links.  The rename is atomic for readers; only two
        # writers at the same instant could both win.
        if path.exists():
            raise FileExistsError(path) from None
        draft.rename(path)


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power loss, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class S3Store:
    """A prefix of an S3 bucket.  One PutObject with `If-None-Match: *` an object."""

    def __init__(self, uri: str, spec: StoreSpec) -> None:
        self.uri = uri
        self._spec = spec
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self._bucket:
            raise StoreError(f"output.uri names no bucket: {uri!r}; write s3://BUCKET/PREFIX")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._files: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # An open s3fs pickles its credentials; each process opens its own from its environment.
        return {**self.__dict__, "_files": None}

    def _s3(self) -> Any:
        if self._files is None:
            import s3fs

            self._files = s3fs.S3FileSystem(
                endpoint_url=self._spec.s3_endpoint_url,
                skip_instance_cache=True,
                use_listings_cache=False,
                config_kwargs={
                    "connect_timeout": self._spec.timeout_s,
                    "read_timeout": self._spec.timeout_s,
                    "retries": {"mode": "standard", "max_attempts": self._spec.attempts},
                },
            )
            # botocore tries a request again until its answer begins; s3fs, when the body breaks off.
            self._files.retries = BODY_ATTEMPTS
        return self._files

    def _call(self, method: str, **arguments: Any) -> Any:
        """One S3 request.  Raises `FileNotFoundError`, `FileExistsError` (412, 409) or `StoreError`."""
        import botocore.exceptions

        try:
            return self._s3().call_s3(method, Bucket=self._bucket, **arguments)
        except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            status = _http_status(error)
            if isinstance(error, FileNotFoundError) or status == 404:
                if _error_code(error) == "NoSuchBucket":
                    raise StoreError(f"output: there is no bucket {self._bucket!r}") from error
                raise FileNotFoundError(arguments.get("Key", "")) from error
            if status in (409, 412):
                raise FileExistsError(arguments.get("Key", "")) from error
            raise StoreError(f"output: {self.uri}: {method} failed: {error}") from error

    def create(self, name: str, data: bytes) -> bool:
        key = self._prefix + name
        for attempt in range(3):
            time.sleep(attempt)
            try:
                self._call("put_object", Key=key, Body=data, IfNoneMatch="*")
                return True
            except FileExistsError:
                stored = self.read(name)
                if stored is not None:
                    return stored == data
                # 409: a competing upload that then failed; the name is free again.
        raise StoreError(f"output: {self.uri}/{name} is refused again and again, yet does not exist")

    def read(self, name: str) -> bytes | None:
        with self._explaining("read", name):
            try:
                return bytes(self._s3().cat_file(f"{self._bucket}/{self._prefix}{name}"))
            except FileNotFoundError:
                return None

    def open(self, name: str) -> BinaryIO:
        with self._explaining("open", name):
            # Without a cache of its own: Parquet asks for just the ranges that it needs.
            file: BinaryIO = self._s3().open(f"{self._bucket}/{self._prefix}{name}", "rb", cache_type="none")
            return file

    @contextlib.contextmanager
    def _explaining(self, verb: str, name: str) -> Iterator[None]:
        import botocore.exceptions
        from aiohttp import ClientError

        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, ClientError) as error:
            raise StoreError(f"output: cannot {verb} {self.uri}/{name}: {error}") from error

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = self._prefix + (f"{prefix}/" if prefix else "")
        page: dict[str, Any] = {}
        while True:
            answer = self._call("list_objects_v2", Prefix=folder, Delimiter="/", **page)
            for entry in answer.get("Contents", ()):
                yield entry["Key"].removeprefix(self._prefix), entry["Size"]
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call("delete_object", Key=self._prefix + name)

    def digest(self, name: str) -> str:
        answer = self._call("head_object", Key=self._prefix + name)
        return "etag:" + str(answer["ETag"]).strip('"')


def _http_status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _error_code(error: BaseException) -> str | None:
    code: str | None = _response(error).get("Error", {}).get("Code")
    return code


def _response(error: BaseException) -> dict[str, Any]:
    """The S3 answer behind an error; s3fs keeps it on the cause."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return response
    return {}
