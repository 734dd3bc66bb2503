"""What listing and reading mean for one URL scheme, and which failures are worth another try."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import StoreSpec

T = TypeVar("T")

FIRST_WAIT_S = 0.2
"""Longest pause before the second attempt; it doubles each time, up to 10 s."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of one object: what a listing says of it."""

    uri: str
    size: int | None
    """Bytes; None where nobody has asked (a manifest) or the name leads nowhere (a dangling link)."""
    etag: str | None = None
    """Version token of an object store, without quotes."""
    mtime_ns: int | None = None


class ReadError(Exception):
    """An object, or a part of it, could not be read; `failure` says why in the words of a row."""

    def __init__(self, failure: Failure) -> None:
        """Keep the failure as the only argument, so that the error survives pickling."""
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return self.failure.detail


class PassingError(Exception):
    """One attempt failed in a way that says nothing about the object; its text is deterministic."""


class Access(Protocol):
    """How the objects of one scheme are listed and read.

    Methods raise `ReadError` when trying again is pointless or has been tried often enough.  `read` and
    `stat` make one attempt and raise `PassingError` when another may succeed.
    """

    def list(self, folder: str, starting: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Objects below `folder`, at most `depth` levels down, whose paths begin with `starting`."""
        ...

    def is_folder(self, uri: str) -> bool:
        """Whether anything can be listed below `uri`."""
        ...

    def stat(self, uri: str) -> ObjectInfo:
        """Describe the object as it is now."""
        ...

    def read(self, uri: str, start: int | None, end: int | None, expect: ObjectInfo | None, max_bytes: int) -> bytes:
        """Bytes [start, end) of the version `expect`, or all of it; never more than `max_bytes` in memory."""
        ...


def persist(store: StoreSpec, attempt: Callable[[], T]) -> T:
    """Make an attempt up to `store.attempts` times, waiting longer each time, with full jitter.

    The only retry layer there is: those of botocore and s3fs are off, so the product of three of them never
    makes a dead store take an hour.
    """
    try:
        # The usual case goes without tenacity, which takes longer than reading a file.
        return attempt()
    except PassingError as error:
        first = error
    retrying = Retrying(
        stop=stop_after_attempt(store.attempts - 1),
        wait=wait_random_exponential(multiplier=2 * FIRST_WAIT_S, max=10),
        retry=retry_if_exception_type(PassingError),
        reraise=True,
    )
    try:
        if store.attempts == 1:
            raise first
        time.sleep(random.uniform(0, FIRST_WAIT_S))
        return retrying(attempt)
    except PassingError as error:
        tries = "1 attempt" if store.attempts == 1 else f"{store.attempts} attempts"
        fail(Outcome.UNREACHABLE, f"{error} ({tries})")


def fail(outcome: Outcome, detail: str) -> NoReturn:
    """Give an object up."""
    raise ReadError(Failure(outcome, detail))


def check_size(size: int, max_bytes: int) -> None:
    """Refuse an object that is larger than `decode.max_bytes`, before it is in memory."""
    if size > max_bytes:
        fail(Outcome.TOO_LARGE, f"{size} bytes are more than decode.max_bytes ({max_bytes})")


def check_version(
    expect: ObjectInfo | None,
    size: int | None,
    etag: str | None = None,
    mtime_ns: int | None = None,
) -> None:
    """Refuse an object that is not the listed version.  What either side does not know is not compared.

    Between two ETags only the ETag counts: copies and restores change the time of an object, not its bytes.
    """
    if expect is None:
        return
    if expect.size is not None and size is not None and expect.size != size:
        fail(Outcome.CHANGED, f"listed with {expect.size} bytes, now has {size}")
    if expect.etag is not None and etag is not None:
        if expect.etag != etag:
            fail(Outcome.CHANGED, "the ETag is not the listed one")
    elif expect.mtime_ns is not None and mtime_ns is not None and expect.mtime_ns != mtime_ns:
        fail(Outcome.CHANGED, "modified since it was listed")
