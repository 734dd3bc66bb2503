"""The output's store in an S3 bucket."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec
from zsic.storage.access import PassingError, ReadError, persist
from zsic.storage.range_file import RangeFile

T = TypeVar("T")

SLOWEST_BYTES_PER_S = 64 * 1024
"""A body that trickles more slowly is given up."""
PART_BYTES = 8 * 2**20
"""Taken for the size of what is read, whose time must be given before it is known."""

_PASSING = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "ExpiredToken"})


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

            from zsic.storage.s3 import make_session

            self._files = s3fs.S3FileSystem(
                endpoint_url=self._spec.s3_endpoint_url,
                session=make_session(),
                skip_instance_cache=True,
                use_listings_cache=False,
                config_kwargs={
                    "connect_timeout": self._spec.timeout_s,
                    "read_timeout": self._spec.timeout_s,
                    "retries": {"mode": "standard", "total_max_attempts": 1},
                },
            )
            # `persist` tries again; more layers would multiply the time that a dead store takes.
            self._files.retries = 1
        return self._files

    def _call(self, method: str, **arguments: Any) -> Any:
        """One S3 request, tried again while the store falters."""
        n_bytes = len(arguments.get("Body", b""))
        return self._run(method, n_bytes, lambda: self._s3()._call_s3(method, Bucket=self._bucket, **arguments))

    def _run(self, what: str, n_bytes: int, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a request where the connections live, each attempt within a time that its bytes decide.

        Raises `FileNotFoundError`, `FileExistsError` (412, 409), or `StoreError` when it was refused, or tried in vain.
        """
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
        from fsspec.asyn import sync

        async def bounded() -> T:
            # The clients' own limits leave gaps: one that waits for `100 Continue` waits for ever.
            async with asyncio.timeout(2 * self._spec.timeout_s + n_bytes / SLOWEST_BYTES_PER_S):
                return await call()

        def attempt() -> T:
            try:
                result: T = sync(self._s3().loop, bounded)
                return result
            except ParamValidationError as error:
                raise StoreError(f"output: {self.uri}: no bucket or object can have such a name") from error
            except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
                self._sort(what, error)

        try:
            return persist(self._spec, attempt)
        except ReadError as error:
            raise StoreError(f"output: {self.uri}: {what} failed: {error}") from error

    def _sort(self, what: str, error: Exception) -> NoReturn:
        """Say what an error means: an answer, a refusal, or a bad moment."""
        status, code = _http_status(error), _error_code(error)
        if code == "NoSuchBucket":
            raise StoreError(f"output: there is no bucket {self._bucket!r}") from error
        if isinstance(error, FileNotFoundError) or status == 404:
            raise FileNotFoundError(f"{self.uri}: {what}") from error
        if status in (409, 412):
            raise FileExistsError(f"{self.uri}: {what}") from error
        if status is not None and status < 500 and status not in (408, 429) and code not in _PASSING:
            raise StoreError(f"output: {self.uri}: {what} failed: the store answered {status} {code}") from error
        if status is not None:
            raise PassingError(f"the store answered {status} {code}") from error
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            raise PassingError("the store did not answer in time") from error
        raise PassingError(f"{type(error).__name__}: {error}") from error

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
        try:
            return self._get(name)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        size = self._call("head_object", Key=self._prefix + name)["ContentLength"]
        return cast(BinaryIO, RangeFile(lambda start, end: self._get(name, start, end), size))

    def _get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes of an object by one request.  Raises `FileNotFoundError`."""
        request = {"Bucket": self._bucket, "Key": self._prefix + name}
        if end is not None:
            request["Range"] = f"bytes={start}-{end - 1}"

        async def get() -> bytes:
            answer = await self._s3()._call_s3("get_object", **request)
            n_bytes = answer["ContentLength"]
            data: bytes = await answer["Body"].read()
            if len(data) != n_bytes:
                raise OSError("the answer was cut short")
            return data

        return self._run(f"get_object {name}", PART_BYTES, get)

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
