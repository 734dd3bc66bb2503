"""How objects of S3 and of stores that speak its protocol are listed and read, and what their errors mean."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, NoReturn, TypeVar

import aiohttp
import s3fs
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from fsspec.asyn import sync

from zsic.core.errors import SpecError
from zsic.core.outcome import Outcome
from zsic.core.spec import StoreSpec
from zsic.storage.access import (
    ObjectInfo,
    PassingError,
    check_size,
    check_version,
    fail,
    persist,
)

T = TypeVar("T")

CONNECTIONS = 64
"""Of one process; botocore's 10 would make more than 10 reads at once wait for each other."""
SLOWEST_BYTES_PER_S = 16 * 1024
"""A body that trickles more slowly is given up, although it never falls silent."""

MAX_KEY_BYTES = 1024

_GONE = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
_REFUSED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "Forbidden", "InvalidObjectState"})
"""Refusals of this object."""
_OUR_FAULT = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
"""Refusals of our credentials or clock: nothing is said of the object, and asking again at once is no use."""


class S3:
    """Objects of S3 buckets.  Credentials come from the environment of the process that reads."""

    def __init__(self, store: StoreSpec) -> None:
        self._store = store
        self._files = s3fs.S3FileSystem(
            anon=store.s3_anonymous,
            endpoint_url=store.s3_endpoint_url,
            session=make_session(),
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": store.timeout_s,
                "read_timeout": store.timeout_s,
                "max_pool_connections": CONNECTIONS,
                "retries": {"mode": "standard", "total_max_attempts": 1},
            },
        )
        self._files.retries = 1

    def list(self, folder: str, starting: str, depth: int | None) -> Iterator[ObjectInfo]:
        """List by pages of up to 1000 keys, in order of their bytes; holds one page.

        The markers of folders (empty objects whose key ends in a slash) are left out.
        """
        scheme, bucket, key = _split(folder)
        prefix = (f"{key.rstrip('/')}/" if key else "") + starting
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if depth == 1:
            request["Delimiter"] = "/"
        while True:
            page = persist(self._store, lambda: self._call("list_objects_v2", **request))
            for entry in page.get("Contents", ()):
                name: str = entry["Key"]
                if name.endswith("/") and not entry["Size"]:
                    continue
                if depth is None or name.count("/", len(prefix) - len(starting)) < depth:
                    yield ObjectInfo(
                        f"{scheme}://{bucket}/{name}",
                        entry["Size"],
                        entry["ETag"].strip('"') if "ETag" in entry else None,
                        _nanoseconds(entry.get("LastModified")),
                    )
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def is_folder(self, uri: str) -> bool:
        _, bucket, key = _split(uri)
        request = {"Bucket": bucket, "MaxKeys": 1, "Prefix": f"{key.rstrip('/')}/" if key else ""}
        page = persist(self._store, lambda: self._call("list_objects_v2", **request))
        return bool(page.get("Contents"))

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = _locate(uri)
        answer = self._call("head_object", Bucket=bucket, Key=key)
        return ObjectInfo(
            uri,
            answer["ContentLength"],
            _etag(answer),
            _nanoseconds(answer.get("LastModified")),
        )

    def read(self, uri: str, start: int | None, end: int | None, expect: ObjectInfo | None, max_bytes: int) -> bytes:
        bucket, key = _locate(uri)
        request = {"Bucket": bucket, "Key": key}
        is_range = start is not None or end is not None
        if is_range:
            request["Range"] = f"bytes={start or 0}-{'' if end is None else end - 1}"
        with _explained():
            data, size = self._run(lambda: self._get(request, expect, max_bytes))
        if is_range and len(data) != max(0, min(size if end is None else end, size) - (start or 0)):
            raise PassingError("the answer is not the range that was asked for")
        return data

    async def _get(self, request: dict[str, str], expect: ObjectInfo | None, max_bytes: int) -> tuple[bytes, int]:
        """Get the bytes, and the size of the whole object."""
        # No If-Match: some stores (Ceph 16) refuse the right ETag.  The answer's own is compared before the
        # body is read, which costs a changed object one connection.
        answer = await self._files._call_s3("get_object", **request)
        body = answer["Body"]
        try:
            n_bytes: int | None = answer.get("ContentLength")
            if n_bytes is None:
                raise PassingError("the answer tells no length")
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            size = int(whole) if whole.isdigit() else n_bytes
            check_version(expect, size, _etag(answer), _nanoseconds(answer.get("LastModified")))
            check_size(n_bytes, max_bytes)
            async with asyncio.timeout(self._store.timeout_s + n_bytes / SLOWEST_BYTES_PER_S):
                data: bytes = await body.read()
        finally:
            body.close()
        if len(data) != n_bytes:
            raise PassingError("the answer was cut short")
        return data, size

    def _call(self, method: str, **request: Any) -> dict[str, Any]:
        with _explained():
            return self._run(lambda: self._files._call_s3(method, **request))

    def _run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in fsspec's thread, where the connections live."""
        result: T = sync(self._files.loop, call)
        return result


def make_session() -> AioSession:
    """Make a session that lists five times faster: botocore spends 80 % of a page guessing the form of its times.

    It finds its own credentials; the descriptions of AWS's services, 0.1 s of JSON, it shares with all of the process.
    """
    session = AioSession()
    session.register_component("data_loader", _descriptions())
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=_parse_moment)
    return session


@cache
def _descriptions() -> Loader:
    loader: Loader = AioSession().get_component("data_loader")
    return loader


def _parse_moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        moment: datetime = parse_timestamp(text)  # The date of an HTTP header.
        return moment


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and key.  The key is taken letter by letter: `%`, `?` and `//` are part of it."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise SpecError(f"{uri!r} names no bucket; write s3://BUCKET/KEY")
    return scheme, bucket, key


def _locate(uri: str) -> tuple[str, str]:
    """Bucket and key of an object."""
    _, bucket, key = _split(uri)
    if not key:
        fail(Outcome.NOT_AN_IMAGE, "a bucket")
    if len(key.encode()) > MAX_KEY_BYTES:
        fail(Outcome.MISSING, "no object can have such a name")
    return bucket, key


def _etag(answer: dict[str, Any]) -> str | None:
    etag = answer.get("ETag")
    return None if etag is None else str(etag).strip('"')


def _nanoseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp()) * 10**9


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of three libraries into ours."""
    try:
        yield
    except (ClientError, OSError) as error:
        answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
        if isinstance(answer, dict):
            _give_up(answer, error)
        raise PassingError(_words(error)) from error
    except ParamValidationError:
        fail(Outcome.MISSING, "no object can have such a name")
    except (BotoCoreError, ResponseParserError, aiohttp.ClientError) as error:
        # Connection errors, parse errors of a broken answer, and credentials that cannot be had just now.
        raise PassingError(_words(error)) from error


def _give_up(answer: dict[str, Any], error: BaseException) -> NoReturn:
    """Sort an S3 answer: does it speak of this object, of us, or of a bad moment?"""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Error", {}).get("Code", status))
    words = f"the store answered {status}" + ("" if code == str(status) else f" {code}")
    if code in _GONE:
        fail(Outcome.MISSING, words)
    if code in _REFUSED or code.startswith("KMS."):
        fail(Outcome.FORBIDDEN, words)
    if code in _OUR_FAULT:
        fail(Outcome.UNREACHABLE, words)
    if status == 416:
        fail(Outcome.CHANGED, "shorter than it was when listed")
    if status in (400, 405, 501) and code in ("400", "InvalidRequest", "MethodNotAllowed", "NotImplemented"):
        fail(Outcome.FORBIDDEN, words)
    raise PassingError(words) from error


def _words(error: BaseException) -> str:
    """Deterministic words: the libraries' own name hosts, ports and addresses."""
    name = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return "the store did not answer in time"
    if "Credential" in name or "Token" in name or "Profile" in name or "SSO" in name:
        return f"there are no usable credentials ({name})"
    if isinstance(error, BotoConnectionError | HTTPClientError | aiohttp.ClientError | OSError):
        return "the connection failed"
    return f"the answer was broken ({name})"
