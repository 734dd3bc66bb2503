"""Somebody who reads the table all the while, and must never see anything but whole increments."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq


def published_parts(out: Path) -> dict[str, int]:
    """Names and rows of the parts that are published now: those of the last snapshot, which are the whole table."""
    last = max((out / "_zsic" / "snapshot").glob("*.json"), default=None)
    return {part["name"]: part["n_rows"] for part in json.loads(last.read_bytes())["parts"]} if last else {}


def read_published(out: Path) -> pa.Table | None:
    """The published table as the snapshot lists it; None before there is one.

    Raises `AssertionError` if a part is not what the snapshot says of it.
    """
    for _ in range(5):
        parts = published_parts(out)
        tables = []
        for name, n_rows in parts.items():
            table = _read_part(out, name)
            if table is None:
                break
            assert table.num_rows == n_rows, f"{name} has {table.num_rows} rows, {n_rows} published"
            tables.append(table)
        else:
            return pa.concat_tables(tables).sort_by("id") if tables else None
        if published_parts(out) == parts:
            break
        # A newer snapshot came in between, and what it supersedes is gone.
    raise AssertionError(f"{name} is published and cannot be read")


def _read_part(out: Path, name: str) -> pa.Table | None:
    for path in (out / name, out / "_zsic" / "staged" / name):
        with contextlib.suppress(OSError):
            return pq.ParquetFile(path).read()
    return None


class Reader:
    """A thread that polls; also the eye that sees how far a run is.

    `also` is called every other second beside.
    """

    def __init__(self, out: Path, also: Callable[[], None] = lambda: None) -> None:
        self._out = out
        self._also = also
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="reader", daemon=True)
        self._rows: dict[str, int] = {}
        self._seen: Any = None
        self.faults: list[str] = []
        self.n_polls = 0

    @property
    def n_rows(self) -> int:
        """Rows in all parts, published or not, as of the last poll."""
        return sum(list(self._rows.values()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.wait(0.3):
            for path in self._out.glob("*.parquet"):
                if path.name not in self._rows:
                    with contextlib.suppress(OSError, pa.ArrowInvalid):
                        self._rows[path.name] = pq.read_metadata(path).num_rows
            try:
                self._look()
            except AssertionError as error:
                self.faults.append(str(error))
            if self.n_polls % 5 == 0:
                self._also()
            self.n_polls += 1

    def _look(self) -> None:
        """Read the table as it is published; only if it has changed, or every tenth time."""
        parts = published_parts(self._out)
        if not parts or (parts == self._seen and self.n_polls % 10):
            return
        self._seen = parts
        table = read_published(self._out)
        ids = table["id"].to_pylist() if table is not None else []
        if len(set(ids)) != len(ids):
            self.faults.append(f"a reader met {len(ids) - len(set(ids))} published rows twice")
