"""The original bytes of rows: from a row's id, uri and key back to its file, tar member or row of a Parquet file."""

import contextlib
import json
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar, cast

import pyarrow as pa

from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import INDEX_BITS
from zsic.core.spec import DecodeSpec, SourceSpec
from zsic.storage.kinds import shard_kind
from zsic.storage.objects import Objects
from zsic.storage.output import JOB
from zsic.storage.parquet import read_parquet
from zsic.storage.plan import GROUP_ROWS, SOURCE_COLUMNS, Plan, read_piece, read_plan, read_sources
from zsic.storage.sample import End, Sample, Source
from zsic.storage.shard import read_shard
from zsic.storage.snapshot import last_snapshot
from zsic.storage.store import Store

SOURCES_AT_ONCE = 10 * GROUP_ROWS
"""Sources of a plan that are held: of sorted rows, each stretch of the plan is read once."""
_INDEX = (1 << INDEX_BITS) - 1


class Row(Protocol):
    """What names the image of a row."""

    @property
    def id(self) -> int: ...
    @property
    def uri(self) -> str: ...
    @property
    def key(self) -> str | None: ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class RowRef:
    """The columns `id`, `uri` and `key` of one row."""

    id: int
    uri: str
    key: str | None


class Originals:
    """The images that the rows of one output were made of, read from the source once more.

    An image counts only as the version that was classified, as far as the output's plans tell: what has changed since
    may deserve another label.  Holds a stretch of a plan, and the versions of sources that were taken up again.
    """

    def __init__(self, store: Store, objects: Objects) -> None:
        self._objects = objects
        self._planned = _PlannedSources(store)
        fields = json.loads(store.read(JOB) or b"{}").get("fields", {})
        self._max_bytes = DecodeSpec.model_validate(fields.get("decode", {})).max_bytes

    def read(self, rows: Iterable[R]) -> Iterator[tuple[R, bytes | Failure]]:
        """Give each row with the bytes of its image, as they are, or with the reason why there are none.

        Rows come in order of id, and are given back in that order: so each shard is read once, and only up to the last
        row that is asked for; loose images are read many at a time.  Memory is bounded by the rows of one shard and a
        window of images.  Raises `SpecError` for a scheme that `store.allow_schemes` has not.
        """
        pairs = ((row, self._planned.find(row)) for row in rows)
        # Loose images in a row are one group, for they are read at the same time.
        for ordinal, group in groupby(pairs, lambda pair: None if _is_loose(pair[1]) else pair[0].id >> INDEX_BITS):
            if ordinal is None:
                yield from self._read_loose(group)
            else:
                members = list(group)
                yield from self._read_shard(members[0][1], [row for row, _ in members])

    def _read_loose(self, pairs: Iterable[tuple[R, Source]]) -> Iterator[tuple[R, bytes | Failure]]:
        waiting: deque[R] = deque()

        def ask() -> Iterator[Source]:
            for row, source in pairs:
                waiting.append(row)
                yield source

        infos = (source.info for source in ask())
        for answer in self._objects.read_many(infos, max_bytes=self._max_bytes):
            yield waiting.popleft(), answer

    def _read_shard(self, source: Source, rows: list[R]) -> Iterator[tuple[R, bytes | Failure]]:
        wanted = {row.id & _INDEX: row for row in rows}
        spec = SourceSpec(uris=(source.uri,), image_column=self._planned.image_column(rows[0].id >> INDEX_BITS))
        read = read_parquet if source.kind == "parquet" else read_shard
        samples = read(source, self._objects, spec, max_bytes=self._max_bytes, skip=lambda index: index not in wanted)
        # Closed as soon as the last one is there: what follows in the shard is not fetched.
        with contextlib.closing(cast(Generator[Sample | End], samples)):
            for sample in samples:
                if isinstance(sample, End):
                    reason = sample.failure or Failure(Outcome.CHANGED, "the shard has fewer images than it had")
                    yield from ((row, reason) for row in wanted.values())
                    return
                row = wanted.pop(sample.index)
                yield row, _answer(sample, row)
                if not wanted:
                    return


def _is_loose(source: Source) -> bool:
    return source.kind == "image"


def _answer(sample: Sample, row: Row) -> bytes | Failure:
    if sample.data is None:
        assert sample.failure is not None
        return sample.failure
    if sample.key != row.key:
        return Failure(Outcome.CHANGED, f"the shard has {sample.key!r} in its place")
    return sample.data


class _PlannedSources:
    """The sources of an output's plans by their ordinals: what they are, and in which version they were classified."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plans: list[Plan] = []
        snapshot = last_snapshot(store)
        # A later plan that is not finished says nothing of the rows that are there.
        for number in range(snapshot.sequence if snapshot else 0):
            if (plan := read_plan(store, number + 1)) is not None:
                self._plans.append(plan)
        self._pieces = [piece for plan in self._plans for piece in plan.added]
        self._firsts: list[int] = []
        first = self._plans[0].first_added if self._plans else 0
        for piece in self._pieces:
            self._firsts.append(first)
            first += piece.n_sources
        self._next = first
        self._redone: dict[int, tuple[Plan, Source]] | None = None
        self._held: tuple[int, list[Source]] = (0, [])

    def find(self, row: Row) -> Source:
        """The source of a row; where no plan tells, what uri and key say of it."""
        ordinal = row.id >> INDEX_BITS
        if (again := self._taken_up_again().get(ordinal)) is not None:
            return again[1]
        if not self._firsts or not self._firsts[0] <= ordinal < self._next:
            return _guess(row)
        first, sources = self._held
        if not first <= ordinal < first + len(sources):
            first, sources = self._held = self._read_around(ordinal)
        source = sources[ordinal - first]
        return source if source.uri == row.uri else _guess(row)

    def image_column(self, ordinal: int) -> str | None:
        """The column that the user named for the images of a Parquet source."""
        again = self._taken_up_again().get(ordinal)
        plans = [again[0]] if again else [plan for plan in self._plans if plan.first_added <= ordinal]
        return cast("str | None", plans[-1].source.get("image_column")) if plans else None

    def _read_around(self, ordinal: int) -> tuple[int, list[Source]]:
        at = bisect_right(self._firsts, ordinal) - 1
        piece, first = self._pieces[at], self._firsts[at]
        start = (ordinal - first) // SOURCES_AT_ONCE * SOURCES_AT_ONCE
        stop = min(start + SOURCES_AT_ONCE, piece.n_sources)
        return first + start, _to_sources(read_sources(self._store, piece.name, start, stop))

    def _taken_up_again(self) -> dict[int, tuple[Plan, Source]]:
        if self._redone is None:
            self._redone = {}
            for plan in self._plans:
                for piece in plan.redone:
                    table = read_piece(self._store, piece)
                    sources = zip(table["ordinal"].to_pylist(), _to_sources(table), strict=True)
                    self._redone.update((ordinal, (plan, source)) for ordinal, source in sources)
        return self._redone


def _to_sources(table: pa.Table) -> list[Source]:
    return [Source(**row) for row in table.select([field.name for field in SOURCE_COLUMNS]).to_pylist()]


def _guess(row: Row) -> Source:
    if row.key is None:
        return Source(row.uri, "image")
    return Source(row.uri, shard_kind(row.uri) or ("parquet" if row.key.isdecimal() else "tar"))
