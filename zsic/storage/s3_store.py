"""The output's store in an S3 bucket."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec

BODY_ATTEMPTS = 3


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
        size = self._call("head_object", Key=self._prefix + name)["ContentLength"]
        return cast(BinaryIO, _RangeFile(lambda start, end: self._range(name, start, end), size))

    def _range(self, name: str, start: int, end: int) -> bytes:
        with self._explaining("read", name):
            return bytes(self._s3().cat_file(f"{self._bucket}/{self._prefix}{name}", start=start, end=end))

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


class _RangeFile(io.RawIOBase):
    """An object as a file for random reads, each a request: Parquet asks for just the ranges that it needs."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, n_bytes: int | None = -1) -> bytes:
        end = self._size if n_bytes is None or n_bytes < 0 else min(self._at + n_bytes, self._size)
        data = self._read_range(self._at, end) if end > self._at else b""
        self._at += len(data)
        return data


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
