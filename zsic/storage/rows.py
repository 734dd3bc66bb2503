"""From a slice of the plan to its rows: every image with its id, and its bytes or the reason why there are none."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import INDEX_BITS
from zsic.core.spec import JobSpec
from zsic.storage.ledger import Runs
from zsic.storage.objects import Objects
from zsic.storage.plan import SOURCE_COLUMNS, read_sources
from zsic.storage.sample import End, Sample, Source
from zsic.storage.samples import read_samples
from zsic.storage.slices import Slice
from zsic.storage.store import Store

MAX_INDEX = (1 << INDEX_BITS) - 1


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before its image is decoded; either `data` or `failure` is set."""

    id: int
    uri: str
    key: str | None
    data: bytes | None
    failure: Failure | None
    kept: str | None
    source_total: int | None = None
    """How many rows a shard has; on its last row only."""
    n_bytes: int = 0
    """What the source needed for it."""

    def without_data(self) -> Self:
        """The row, letting go of the bytes."""
        return replace(self, data=None)


def read_rows(store: Store, objects: Objects, spec: JobSpec, piece: Slice) -> Iterator[RawRow]:
    """Read the rows of a slice in order of id, those left out that it says to skip."""
    table = read_sources(store, piece.piece, piece.start, piece.stop)
    rows = table.select([field.name for field in SOURCE_COLUMNS]).to_pylist()
    sources = [(ordinal, Source(**row)) for ordinal, row in zip(table["ordinal"].to_pylist(), rows, strict=True)]
    return read_sources_rows(sources, objects, spec, piece.skip, piece.total)


def read_sources_rows(
    sources: list[tuple[int, Source]],
    objects: Objects,
    spec: JobSpec,
    skip: Runs = (),
    total: int | None = None,
) -> Iterator[RawRow]:
    """Read the rows of sources, given with their ordinals; loose images many at a time, shards one after the other."""
    if all(source.kind == "image" for _, source in sources):
        yield from _read_loose(sources, objects, spec)
        return
    for ordinal, source in sources:
        samples = read_samples(source, objects, spec, skip=partial(_is_left_out, skip, reread(skip, total)))
        yield from make_rows(ordinal, source, samples, skip, total)


def _read_loose(sources: list[tuple[int, Source]], objects: Objects, spec: JobSpec) -> Iterator[RawRow]:
    answers = objects.read_many((source.info for _, source in sources), max_bytes=spec.decode.max_bytes)
    for (ordinal, source), answer in zip(sources, answers, strict=True):
        data, failure = (None, answer) if isinstance(answer, Failure) else (answer, None)
        n_bytes = len(data or b"")
        yield RawRow(ordinal << INDEX_BITS, source.uri, None, data, failure, source.columns, n_bytes=n_bytes)


def make_rows(
    ordinal: int, source: Source, samples: Iterator[Sample | End], skip: Runs = (), total: int | None = None
) -> Iterator[RawRow]:
    """Make rows of one reading of a source; `skip` and `total` are what earlier readings left of it."""
    return _number(ordinal, source, _complete(samples, skip, total), reread(skip, total))


def reread(skip: Runs, total: int | None) -> int | None:
    """The index of a row that is read although it exists: the last one, where nobody has met the end behind it.

    Only a row can tell how many there are, and it may be the last of all.
    """
    return skip[-1][1] - 1 if skip and total is None else None


def _number(ordinal: int, source: Source, samples: Iterator[Sample | End], again: int | None) -> Iterator[RawRow]:
    """Make rows of samples.  Each waits for the next, for only the end tells which is the last.

    The row `again` exists already, and is given only if it is the last.
    """
    waiting: RawRow | None = None
    for sample in samples:
        match sample:
            case Sample(index=index) if index > MAX_INDEX:
                full = Failure(Outcome.BAD_SHARD, f"more than {MAX_INDEX} images; the rest was not read")
                if waiting is not None:
                    yield replace(waiting, data=None, failure=full, source_total=MAX_INDEX + 1)
                return
            case Sample():
                if waiting is not None and waiting.id & MAX_INDEX != again:
                    yield waiting
                waiting = RawRow(
                    (ordinal << INDEX_BITS) | sample.index,
                    source.uri,
                    sample.key,
                    sample.data,
                    sample.failure,
                    sample.columns,
                    n_bytes=len(sample.data or b"") if sample.n_bytes is None else sample.n_bytes,
                )
            case End(total=total):
                if waiting is not None:
                    index = waiting.id & MAX_INDEX
                    if index == total - 1:
                        yield replace(waiting, source_total=total)
                    elif index != again:
                        yield waiting


def _complete(samples: Iterator[Sample | End], skip: Runs, known_total: int | None) -> Iterator[Sample | End]:
    """Make a reading of a source agree with what earlier readings left of it.

    An earlier reading that met the end binds this one to its total.  Where a shard has gone, changed or broken off
    since some of its rows were written, the rows that are missing get the reason, and one more ends the source: so
    it can always be finished.
    """
    n_before = skip[-1][1] if skip else 0
    for sample in samples:
        match sample:
            case Sample(index=index) if known_total is not None and index >= known_total:
                yield End(known_total)
                return
            case Sample():
                yield sample
            case End(total=found, failure=failure):
                went_on = found > n_before or (found == n_before and failure is None)
                total = known_total or (found if went_on else n_before + 1)
                reason = failure or Failure(Outcome.BAD_SHARD, "fewer images than an earlier attempt found")
                for index in range(found, total):
                    if not _within(index, skip):
                        yield Sample(index, None, None, reason)
                yield End(total)


def _is_left_out(skip: Runs, again: int | None, index: int) -> bool:
    return index != again and _within(index, skip)


def _within(index: int, runs: Runs) -> bool:
    return any(start <= index < stop for start, stop in runs)
