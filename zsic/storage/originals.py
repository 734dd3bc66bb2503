"""The original bytes of rows: from a row's id, uri and key back to its file, tar member or row of a Parquet file."""

import contextlib
import hashlib
import json
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa

from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import INDEX_BITS
from zsic.core.spec import DecodeSpec, ExecutionSpec, SourceSpec, StoreSpec
from zsic.storage.kinds import shard_kind
from zsic.storage.objects import Objects
from zsic.storage.output import JOB
from zsic.storage.parquet import read_parquet
from zsic.storage.plan import GROUP_ROWS, SOURCE_COLUMNS, Plan, read_piece, read_plan, read_sources
from zsic.storage.sample import End, Sample, Source
from zsic.storage.shard import read_shard
from zsic.storage.snapshot import last_snapshot
from zsic.storage.store import Store, open_store
from zsic.storage.video import make_projector, read_video

SOURCES_AT_ONCE = 10 * GROUP_ROWS
"""Sources of a plan that are held: of sorted rows, each stretch of the plan is read once."""
_TIME = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d")
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
    may deserve another label.  The plans of a relabelled output tell of parts, so there images count as they are now.
    Holds a stretch of a plan, and the versions of sources that were taken up again.
    """

    def __init__(self, store: Store, objects: Objects, *, sources_at_once: int = SOURCES_AT_ONCE) -> None:
        self._objects = objects
        self._planned = _PlannedSources(store, objects.store, sources_at_once)
        fields = json.loads(store.read(JOB) or b"{}").get("fields", {})
        self._decode = DecodeSpec.model_validate(fields.get("decode", {}))
        self._max_bytes = self._decode.max_bytes

    def place(self, batch: pa.RecordBatch) -> pa.Array:
        """Where the images of rows lie, as numbers to sort by (and then by id): rows of one shard come together.

        Needs the columns `id` and `uri`.
        """
        if not self._planned.is_relabelled:
            return batch["id"]
        uris = batch["uri"].dictionary_encode()
        # Ids tell where rows of another output lie; so the order of sources is any, but always the same.
        digests = [hashlib.blake2b(uri.encode(), digest_size=8).digest() for uri in uris.dictionary.to_pylist()]
        return pa.array(np.frombuffer(b"".join(digests), np.int64)).take(uris.indices)

    def read(self, rows: Iterable[R], stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[R, bytes | Failure]]:
        """Give each row with the bytes of its image, as they are, or with the reason why there are none.

        Rows come in order of `place` and id (a few rows: in order of uri and id), and rows of one shard are given back
        in the order of the shard, which for an output of `classify` is that of their ids.  So each shard is read once,
        and only up to the last row that is asked for; loose images are read many at a time.  Memory is bounded by the
        rows of one shard and a window of images.  Ends early once `stop` says so, which is asked at each member of a
        shard, wanted or not.  Raises `SpecError` for a scheme that `store.allow_schemes` has not.
        """
        pairs = ((row, self._planned.find(row)) for row in rows)
        # Loose images in a row are one group, for they are read at the same time.
        for uri, group in groupby(pairs, lambda pair: None if pair[1].kind == "image" else pair[1].uri):
            if uri is None:
                yield from self._read_loose(group)
            else:
                members = list(group)
                try:
                    yield from self._read_shard(members[0][1], [row for row, _ in members], stop)
                except _StoppedError:
                    return

    def _read_loose(self, pairs: Iterable[tuple[R, Source]]) -> Iterator[tuple[R, bytes | Failure]]:
        waiting: deque[R] = deque()

        def ask() -> Iterator[Source]:
            for row, source in pairs:
                waiting.append(row)
                yield source

        infos = (source.info for source in ask())
        for answer in self._objects.read_many(infos, max_bytes=self._max_bytes):
            yield waiting.popleft(), answer

    def _read_shard(
        self, source: Source, rows: list[R], stop: Callable[[], bool]
    ) -> Iterator[tuple[R, bytes | Failure]]:
        wanted: dict[str | None, list[R]] = {}
        for row in rows:
            wanted.setdefault(row.key, []).append(row)
        places = None if self._planned.is_relabelled else {row.id & _INDEX for row in rows}

        def skip(place: int) -> bool:
            if stop():
                raise _StoppedError
            return places is not None and place not in places

        samples = self._samples(source, rows[0].id >> INDEX_BITS, skip)
        reason = Failure(Outcome.CHANGED, "the shard has no such image any more")
        # Closed as soon as the last one is there: what follows in the shard is not fetched.
        with contextlib.closing(cast(Generator[Sample | End], samples)):
            for sample in samples:
                if isinstance(sample, End):
                    reason = sample.failure or reason
                    continue
                answer = sample.failure if sample.data is None else sample.data
                assert answer is not None
                yield from ((row, answer) for row in wanted.pop(sample.key, ()))
                if not wanted:
                    return
        yield from ((row, reason) for row in chain.from_iterable(wanted.values()))

    def _samples(self, source: Source, ordinal: int, skip: Callable[[int], bool]) -> Iterator[Sample | End]:
        if source.kind == "video":
            timeout_s = ExecutionSpec().decode_timeout_s
            return read_video(
                source, self._objects, make_projector(self._planned.fps, self._decode, timeout_s), skip=skip
            )
        spec = SourceSpec(uris=(source.uri,), image_column=self._planned.image_column(ordinal))
        read = read_parquet if source.kind == "parquet" else read_shard
        return read(source, self._objects, spec, max_bytes=self._max_bytes, skip=skip)


class _StoppedError(Exception):
    """Nobody waits any more."""


class _PlannedSources:
    """The sources of an output's plans by their ordinals: what they are, and in which version they were classified."""

    def __init__(self, store: Store, spec: StoreSpec, at_once: int = SOURCES_AT_ONCE) -> None:
        self._store = store
        self._at_once = at_once
        self._plans: list[Plan] = []
        snapshot = last_snapshot(store)
        # A later plan that is not finished says nothing of the rows that are there.
        for number in range(snapshot.sequence if snapshot else 0):
            if (plan := read_plan(store, number + 1)) is not None:
                self._plans.append(plan)
        self.is_relabelled = any(plan.source.get("format") == "output" for plan in self._plans)
        """The sources of the plans are parts of another output, and the ids tell of rows of those."""
        self._last_column, self.fps = self._find_last(spec)
        if self.is_relabelled:
            self._plans = []
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
        return _column_of(plans[-1]) if plans else self._last_column

    def _find_last(self, spec: StoreSpec) -> tuple[str | None, float | None]:
        """The column of images and the rate of frames by the last plan, or by that of the output that was relabelled.

        The rate is the same in all: it is part of the fingerprint.
        """
        if not self.is_relabelled:
            last = self._plans[-1] if self._plans else None
            return (_column_of(last), cast("float | None", last.source.get("fps"))) if last else (None, None)
        (uri,) = cast("list[str]", self._plans[-1].source["uris"])
        origin = _PlannedSources(open_store(uri.rstrip("/"), spec), spec)
        return origin._last_column, origin.fps

    def _read_around(self, ordinal: int) -> tuple[int, list[Source]]:
        at = bisect_right(self._firsts, ordinal) - 1
        piece, first = self._pieces[at], self._firsts[at]
        start = (ordinal - first) // self._at_once * self._at_once
        stop = min(start + self._at_once, piece.n_sources)
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


def _column_of(plan: Plan) -> str | None:
    return cast("str | None", plan.source.get("image_column"))


def _to_sources(table: pa.Table) -> list[Source]:
    return [Source(**row) for row in table.select([field.name for field in SOURCE_COLUMNS]).to_pylist()]


def _guess(row: Row) -> Source:
    if row.key is None:
        return Source(row.uri, "image")
    if _TIME.fullmatch(row.key):
        return Source(row.uri, "video")
    return Source(row.uri, shard_kind(row.uri) or ("parquet" if row.key.isdecimal() else "tar"))
