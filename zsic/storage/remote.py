"""How objects of any other fsspec file system (GCS, Azure, memory ...) are listed and read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import fsspec
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


class Remote:
    """Objects of one fsspec scheme.

    Only asynchronous file systems have a deadline a request; the others' own time-outs count.
    """

    def __init__(self, scheme: str, store: StoreSpec) -> None:
        self._scheme = scheme
        self._store = store
        try:
            self._files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise SpecError(f"{scheme}:// cannot be read: {error}") from None

    def list(self, folder: str, starting: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Walk depth first, in order of names; holds one folder per level."""
        path = self._path(folder).rstrip("/")
        entries = persist(self._store, lambda: self._call("ls", path, detail=True))
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            name = str(entry["name"]).rstrip("/")
            if name == path or not name.rpartition("/")[2].startswith(starting):
                continue
            if entry["type"] != "directory":
                yield self._describe(self._uri(name), entry)
            elif depth is None or depth > 1:
                yield from self.list(self._uri(name), "", None if depth is None else depth - 1)

    def is_folder(self, uri: str) -> bool:
        return bool(persist(self._store, lambda: self._call("isdir", self._path(uri))))

    def stat(self, uri: str) -> ObjectInfo:
        entry = self._call("info", self._path(uri))
        if entry["type"] == "directory":
            fail(Outcome.NOT_AN_IMAGE, "a folder")
        return self._describe(uri, entry)

    def read(self, uri: str, start: int | None, end: int | None, expect: ObjectInfo | None, max_bytes: int) -> bytes:
        info = self.stat(uri)
        check_version(expect, info.size, info.etag, info.mtime_ns)
        start = start or 0
        if info.size is not None:
            end = info.size if end is None else min(end, info.size)
        # One byte more than allowed is enough to know, where nothing tells the size.
        end = start + max_bytes + 1 if end is None else end
        if info.size is not None:
            check_size(end - start, max_bytes)
        data = bytes(self._call("cat_file", self._path(uri), start=start, end=end)) if end > start else b""
        check_size(len(data), max_bytes)
        if info.size is not None and len(data) != end - start:
            raise PassingError("the answer was cut short")
        return data

    def _path(self, uri: str) -> str:
        return str(self._files._strip_protocol(uri))

    def _uri(self, path: str) -> str:
        return path if "://" in path else f"{self._scheme}://{path.lstrip('/')}"

    @staticmethod
    def _describe(uri: str, entry: dict[str, Any]) -> ObjectInfo:
        etag = entry.get("etag") or entry.get("ETag") or entry.get("md5Hash")
        moment = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
        if isinstance(moment, datetime):
            moment = moment.timestamp()
        return ObjectInfo(
            uri,
            entry.get("size"),
            None if etag is None else str(etag).strip('"'),
            int(moment * 1e9) if isinstance(moment, int | float) else None,
        )

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        with _explained():
            if not self._files.async_impl:
                return getattr(self._files, method)(*arguments, **options)
            call: Callable[..., Any] = getattr(self._files, f"_{method}")
            return sync(self._files.loop, call, *arguments, timeout=self._store.timeout_s, **options)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        fail(Outcome.MISSING, "no such object")
    except PermissionError:
        fail(Outcome.FORBIDDEN, "the store refused")
    except TimeoutError as error:
        raise PassingError("the store did not answer in time") from error
    except OSError as error:
        raise PassingError("the store failed") from error
