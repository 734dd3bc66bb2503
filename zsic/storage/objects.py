"""Where the bytes of sources come from: all schemes behind one door, with retries, deadlines and limits."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from zsic.core.errors import SourceError, SpecError
from zsic.core.outcome import Failure
from zsic.core.spec import StoreSpec
from zsic.storage.access import Access, ObjectInfo, PassingError, ReadError, persist
from zsic.storage.stream import Stream
from zsic.storage.uri import scheme_of

__all__ = ["ObjectInfo", "Objects", "ReadError"]

S = TypeVar("S")
T = TypeVar("T")

WINDOW_BYTES = 128 * 2**20
"""Most bytes that `read_many` holds or has asked for, beyond the one image that must be next."""
UNKNOWN_BYTES = 2**20
"""What an object of unknown size (an entry of a manifest) counts for until it is there."""
CHUNK_BYTES = 8 * 2**20
"""One range of a stream: S3 gives tens of MB/s a connection, and 8-16 MB hide the latency of a request."""
WHOLE_BYTES = 16 * 2**20
"""Smaller objects are streamed by one request."""
CHUNKS_AHEAD = 3
"""Ranges under way while one is used: a stream holds at most 4 * 8 MiB."""


class Objects:
    """Lists and reads objects.  Cheap to make and to pickle: holds the spec, no connection, no credential."""

    def __init__(
        self,
        store: StoreSpec,
        *,
        window_bytes: int = WINDOW_BYTES,
        chunk_bytes: int = CHUNK_BYTES,
        whole_bytes: int = WHOLE_BYTES,
    ) -> None:
        self.store = store
        self._window_bytes = window_bytes
        self._chunk_bytes = chunk_bytes
        self._whole_bytes = whole_bytes

    def list(self, folder: str, *, starting: str = "", depth: int | None = None) -> Iterator[ObjectInfo]:
        """Stream what is below `folder`, at most `depth` levels down, in order of names.

        Only paths that begin with `starting`, seen from `folder`.  Raises `SourceError` if the listing cannot
        be had in full.
        """
        try:
            yield from self._access(folder).list(folder, starting, depth)
        except (ReadError, PassingError) as error:
            raise SourceError(f"{folder} cannot be listed: {error}") from None

    def is_folder(self, uri: str) -> bool:
        """Whether anything can be listed below `uri`.  Raises `SourceError` if the store does not say."""
        try:
            return self._access(uri).is_folder(uri)
        except ReadError as error:
            raise SourceError(f"{uri} cannot be listed: {error}") from None

    def stat(self, uri: str) -> ObjectInfo:
        """Describe one object as it is now.  Raises `ReadError`."""
        access = self._access(uri)
        return persist(self.store, lambda: access.stat(uri))

    def read(
        self,
        uri: str,
        *,
        start: int | None = None,
        end: int | None = None,
        expect: ObjectInfo | None = None,
        max_bytes: int,
    ) -> bytes:
        """Read an object, or its bytes [start, end).

        Raises `ReadError`: missing, forbidden, larger than `max_bytes` (found out before it is in memory),
        not the version `expect`, or unreachable after `store.attempts`.  Never returns less than was asked
        for, unless the object ends.
        """
        access = self._access(uri)
        return persist(self.store, lambda: access.read(uri, start, end, expect, max_bytes))

    def read_many(
        self, infos: Iterable[ObjectInfo], *, max_bytes: int, concurrency: int = 32
    ) -> Iterator[bytes | Failure]:
        """Read whole objects many at a time, as latency asks for; yields in the order of `infos`.

        Memory is bounded by a window of bytes, not of objects.
        """

        def read(info: ObjectInfo) -> bytes | Failure:
            try:
                return self.read(info.uri, expect=info, max_bytes=max_bytes)
            except ReadError as error:
                return error.failure

        return map_in_order(
            read, infos, concurrency, lambda info: _charge(info, max_bytes), window_bytes=self._window_bytes
        )

    def stat_many(self, uris: Iterable[str], *, concurrency: int = 32) -> Iterator[ObjectInfo | Failure]:
        """Describe many objects at a time; yields in the order of `uris`."""

        def stat(uri: str) -> ObjectInfo | Failure:
            try:
                return self.stat(uri)
            except ReadError as error:
                return error.failure

        return map_in_order(stat, uris, concurrency, lambda _: 0)

    def open_stream(self, info: ObjectInfo) -> Stream:
        """Open one version of an object for reading from its first byte to its last.

        Ranges are fetched ahead in threads, and one that fails is fetched again by itself: nothing is read
        twice and nothing is left out.  Reads raise `ReadError` once a range is given up.
        """
        if info.size is None:
            info = self.stat(info.uri)
        return Stream(self._chunks(info), info.size or 0)

    def _chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        size = info.size or 0
        step = size if size <= self._whole_bytes else self._chunk_bytes

        def read(start: int) -> bytes:
            end = min(start + step, size)
            return self.read(info.uri, start=start, end=end, expect=info, max_bytes=step)

        if not size:
            return
        if step == size:
            yield self.read(info.uri, expect=info, max_bytes=step)
            return
        yield from map_in_order(read, range(0, size, step), CHUNKS_AHEAD, lambda _: 0, CHUNKS_AHEAD)

    def check_scheme(self, uri: str) -> None:
        """Raise `SpecError` if `store.allow_schemes` has not the scheme of this uri."""
        scheme = scheme_of(uri)
        if scheme not in self.store.allow_schemes:
            allowed = ", ".join(self.store.allow_schemes)
            raise SpecError(
                f"store.allow_schemes is {allowed}; {uri!r} needs {scheme}: add it if the source is trusted"
            )

    def _access(self, uri: str) -> Access:
        self.check_scheme(uri)
        return _open(scheme_of(uri), self.store, os.getpid())


@lru_cache(maxsize=32)
def _open(scheme: str, store: StoreSpec, process: int) -> Access:
    """Open a scheme once a process: connections do not survive a fork, and cost 0.1 s each time."""
    if scheme == "file":
        from zsic.storage.disk import Disk

        return Disk()
    if scheme in ("s3", "s3a"):
        from zsic.storage.s3 import S3

        return S3(store)
    from zsic.storage.remote import Remote

    return Remote(scheme, store)


def _charge(info: ObjectInfo, max_bytes: int) -> int:
    """What a read may hold; an object over the limit is refused unread, or after a glance."""
    size = UNKNOWN_BYTES if info.size is None else info.size
    return 0 if size > max_bytes else size


def map_in_order(
    call: Callable[[S], T],
    items: Iterable[S],
    concurrency: int,
    charge: Callable[[S], int],
    ahead: int | None = None,
    *,
    window_bytes: int = WINDOW_BYTES,
) -> Iterator[T]:
    """Call in threads, yield in order of the items, and hold little.

    At most `ahead` items and `window_bytes` (by `charge`) wait or are under way.
    """
    waiting: deque[tuple[Future[T], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="read")
    try:
        for item in items:
            n_bytes = charge(item)
            while waiting and (held + n_bytes > window_bytes or len(waiting) >= (ahead or 4 * concurrency)):
                done, n_done = waiting.popleft()
                yield done.result()
                held -= n_done
            waiting.append((pool.submit(call, item), n_bytes))
            held += n_bytes
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        # Whoever stops early does not wait for reads that nobody needs; each ends by its own deadline.
        pool.shutdown(wait=False, cancel_futures=True)
