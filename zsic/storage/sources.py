"""What the spelling of a source stands for: a listing of folders, prefixes, globs, ranges, manifests, Delta tables."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from zsic.core.errors import SourceError, SpecError
from zsic.core.outcome import Outcome
from zsic.core.spec import SourceSpec
from zsic.storage.delta_source import is_delta, list_live
from zsic.storage.kinds import (
    COMPANION_ENDINGS,
    MANIFEST_ENDINGS,
    PARQUET_ENDINGS,
    Kind,
    ending_of,
    is_companion,
    is_hidden,
    is_video,
    shard_kind,
)
from zsic.storage.manifest import check_columns, read_manifest
from zsic.storage.objects import ObjectInfo, Objects, ReadError
from zsic.storage.parquet import find_image_column, read_schema
from zsic.storage.pattern import (
    compile_glob,
    expand_braces,
    glob_depth,
    has_braces,
    is_glob,
    literal_start,
    split_glob,
)
from zsic.storage.sample import SOURCE_SCHEMA, Source
from zsic.storage.uri import canonical_uri, folder_of, local_path, name_of, scheme_of

BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class _Found:
    """One object that a spelling stands for."""

    info: ObjectInfo
    kind: str | None
    """None is what a folder holds beside images."""
    is_new: bool
    """No earlier spelling covers it."""


@dataclass(frozen=True, slots=True)
class _Cover:
    """All that one folder or glob lists."""

    base: str
    holds: Callable[[str], bool]


def list_sources(
    spec: SourceSpec, objects: Objects, *, excluding: str | None = None, batch_rows: int = BATCH_ROWS
) -> "Listing":
    """List all sources; the listing happens as its result is iterated, each time anew."""
    return Listing(spec, objects, excluding=excluding, batch_rows=batch_rows)


class Listing:
    """All sources that a spec stands for, in batches of at most `batch_rows` rows of `SOURCE_SCHEMA`.

    Each spelling of `source.uris` is, in this order: an object or folder of exactly that name; braces to
    expand; a glob (of objects, not of folders); in an object store, how keys begin.  What an earlier spelling
    covers is left out; rows of manifests are never compared.  A folder that is a Delta table stands for the files that
    are the table now, unless `source.format` asks for something else.  What lies below the folder or prefix
    `excluding`, the job's own output, is no source of it.  Iterating holds one batch and one page, and the names of a
    Delta table's files; it raises `SourceError` for a spelling that matches nothing and `SpecError` for columns that
    are not there.
    """

    def __init__(
        self, spec: SourceSpec, objects: Objects, *, excluding: str | None = None, batch_rows: int = BATCH_ROWS
    ) -> None:
        self._spec = spec
        self._batch_rows = batch_rows
        self._objects = objects
        self._excluded = None if excluding is None else _canonical(excluding).rstrip("/") + "/"
        self._covers: list[_Cover] = []
        self._named: set[str] = set()
        self._parquet: str | None = None
        self._manifest: str | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self._covers, self._named, self._manifest = [], set(), None
        rows: list[Source] = []
        for source in self._read():
            rows.append(source)
            if len(rows) == self._batch_rows:
                yield _to_batch(rows)
                rows = []
        if rows:
            yield _to_batch(rows)

    def covers(self, uri: str) -> bool:
        """Whether the listing, which has been read to its end, would have held this source, had it existed.

        Raises `SpecError` where a manifest was read: what it no longer names may well exist.
        """
        if self._manifest is not None:
            raise SpecError(
                f"update.prune: {self._manifest} is a manifest, and what it no longer names need not be gone; "
                "prune with the folders, prefixes or globs themselves"
            )
        if self._excluded is not None and uri.startswith(self._excluded):
            return False
        return uri in self._named or any(cover.holds(uri) for cover in self._covers)

    def _read(self) -> Iterator[Source]:
        for spelled in dict.fromkeys(self._spec.uris):
            n_found = n_sources = 0
            self._parquet = None
            for found in self._expand(spelled):
                if self._excluded is not None and found.info.uri.startswith(self._excluded):
                    continue
                n_found += 1
                n_sources += found.kind is not None
                if found.kind is not None and found.is_new:
                    yield from self._sources(found.info, found.kind)
            if not n_sources:
                raise SourceError(_nothing(spelled, n_found, self._spec.format))

    def _expand(self, spelled: str) -> Iterator[_Found]:
        uri = _canonical(spelled)
        if self._spec.format == "delta":
            yield from self._list_delta(uri)
            return
        is_disk = scheme_of(uri) == "file"
        info = None if uri.endswith("/") else self._stat(uri)
        if info is not None and (info.size or is_disk or not self._objects.is_folder(uri)):
            yield self._name(info)
        elif self._objects.is_folder(uri):
            is_table = self._spec.format == "auto" and is_delta(uri, self._objects)
            yield from self._list_delta(uri) if is_table else self._list_folder(uri)
        elif has_braces(spelled):
            yield from self._list_braces(spelled)
        elif is_glob(uri):
            yield from self._list_glob(uri)
        elif not is_disk and name_of(uri):
            yield from self._list_folder(folder_of(uri), name_of(uri))

    def _stat(self, uri: str) -> ObjectInfo | None:
        try:
            return self._objects.stat(uri)
        except ReadError as error:
            if error.failure.outcome is Outcome.UNREACHABLE:
                raise SourceError(f"{uri} cannot be read: {error}") from None
            # Without the right to list, S3 answers 403 for what does not exist; a folder may still be there.
            return None

    def _name(self, info: ObjectInfo) -> _Found:
        """What is named by itself."""
        is_new = info.uri not in self._named and not any(cover.holds(info.uri) for cover in self._covers)
        self._named.add(info.uri)
        return _Found(info, self._kind_of_named(info.uri), is_new)

    def _list_braces(self, spelled: str) -> Iterator[_Found]:
        """Ask for all names at once; only what is no object is expanded one by one."""
        answers = self._objects.stat_many(map(_canonical, expand_braces(spelled)))
        for name, answer in zip(expand_braces(spelled), answers, strict=True):
            if isinstance(answer, ObjectInfo) and answer.size:
                yield self._name(answer)
                continue
            nothing = True
            for found in self._expand(name):
                nothing = False
                yield found
            if nothing:
                raise SourceError(_nothing(name, 0, self._spec.format))

    def _list_folder(self, folder: str, starting: str = "") -> Iterator[_Found]:
        base = _base(folder)

        def kind_of(uri: str) -> str | None:
            path = _spell(uri)[len(base) :]
            return None if is_hidden(path) else self._kind_of_found(uri)

        def holds(uri: str) -> bool:
            return _spell(uri).startswith(base + starting) and kind_of(uri) is not None

        is_new = self._cover(_Cover(base, holds))
        for info in self._objects.list(folder, starting=starting):
            yield _Found(info, kind_of(info.uri), is_new(info.uri))

    def _list_delta(self, folder: str) -> Iterator[_Found]:
        """The files that the table's log names, as the store lists them, so that each has its ETag and size."""
        base = _base(folder)
        live = list_live(folder, self._objects)
        is_new = self._cover(_Cover(base, lambda uri: _spell(uri).startswith(base) and shard_kind(uri) == "parquet"))
        for info in self._objects.list(folder):
            if info.uri in live:
                live.remove(info.uri)
                yield _Found(info, "parquet", is_new(info.uri))
        if live:
            raise SourceError(
                f"source.uris: the Delta table {folder} names {len(live)} files that are not there ({min(live)}); "
                "they were vacuumed while it was read, or are lost"
            )

    def _list_glob(self, uri: str) -> Iterator[_Found]:
        folder, rest = split_glob(uri)
        base, matches = _base(folder), compile_glob(rest).fullmatch
        asks_hidden = "/." in f"/{rest}"
        asks_companions = ending_of(rest) in COMPANION_ENDINGS or self._spec.format == "manifest"

        def kind_of(uri: str) -> str | None:
            hidden = is_hidden(_spell(uri)[len(base) :]) and not asks_hidden
            companion = is_companion(uri) and not asks_companions
            return None if hidden or companion else self._kind_of_named(uri)

        def holds(uri: str) -> bool:
            path = _spell(uri)
            return path.startswith(base) and bool(matches(path[len(base) :])) and kind_of(uri) is not None

        is_new = self._cover(_Cover(base, holds))
        for info in self._objects.list(folder, starting=literal_start(rest), depth=glob_depth(rest)):
            if matches(_spell(info.uri)[len(base) :]):
                yield _Found(info, kind_of(info.uri), is_new(info.uri))

    def _cover(self, cover: _Cover) -> Callable[[str], bool]:
        """Note what is about to be listed, and return the test whether nothing before covers an object."""
        rivals = [
            other for other in self._covers if other.base.startswith(cover.base) or cover.base.startswith(other.base)
        ]
        self._covers.append(cover)
        return lambda uri: uri not in self._named and not any(rival.holds(uri) for rival in rivals)

    def _kind_of_named(self, uri: str) -> str:
        """What the user named is what `source.format` says, else what its ending says."""
        match self._spec.format:
            case "auto":
                lower = uri.lower()
                return shard_kind(uri) or ("manifest" if lower.endswith(MANIFEST_ENDINGS) else self._loose_kind(uri))
            case "images":
                return "image"
            case other:
                return other

    def _kind_of_found(self, uri: str) -> str | None:
        """What a folder holds is known by its ending; `source.format` picks from it."""
        lower = uri.lower()
        shard = shard_kind(uri)
        match self._spec.format:
            case "auto":
                return shard or (None if is_companion(uri) else self._loose_kind(uri))
            case "images":
                return None if shard or is_companion(uri) else "image"
            case "video":
                return "video" if is_video(uri) else None
            case "manifest":
                return "manifest" if lower.endswith((*MANIFEST_ENDINGS, *PARQUET_ENDINGS)) else None
            case other:
                return other if shard == other else None

    def _loose_kind(self, uri: str) -> Kind:
        """What a file is that is no shard: an image, unless frames are asked for and it is called like a video."""
        return "video" if self._spec.fps is not None and is_video(uri) else "image"

    def _sources(self, info: ObjectInfo, kind: str) -> Iterator[Source]:
        if kind == "parquet" and self._parquet_kind(info) == "manifest":
            kind = "manifest"
        match kind:
            case "manifest":
                self._manifest = info.uri
                yield from self._manifest_sources(info)
            case "image" | "tar" | "parquet" | "video":
                yield _source(info, kind)

    def _manifest_sources(self, info: ObjectInfo) -> Iterator[Source]:
        n_rows = 0
        for uri, columns in read_manifest(info, self._objects, self._spec):
            n_rows += 1
            self._check_entry(uri, info.uri, n_rows)
            # A local file is asked for its size and time at no cost; one request a row would double those of
            # a job.
            known = self._stat(uri) if scheme_of(uri) == "file" else None
            yield _source(known or ObjectInfo(uri, None), self._loose_kind(uri), columns)
        if not n_rows:
            raise SourceError(f"{info.uri} is a manifest without rows")

    def _check_entry(self, uri: str, manifest: str, number: int) -> None:
        """Refuse what an entry may not name: whoever writes a manifest is not always who runs the job.

        Above all no file of the machines that read, of which a manifest in an object store has nothing to know.
        """
        try:
            self._objects.check_scheme(uri)
        except SpecError as error:
            raise SpecError(f"{manifest}: row {number}: {error}") from None
        allowed = self._objects.store.remote_manifests_name_files
        if scheme_of(uri) == "file" and scheme_of(manifest) != "file" and not allowed:
            raise SpecError(
                f"{manifest}: row {number} names {uri!r}, a file of the machine that reads; a manifest in an object "
                "store may not, unless store.remote_manifests_name_files is set; use s3:// or a relative path"
            )

    def _parquet_kind(self, info: ObjectInfo) -> str:
        """Images, or a manifest of them?  The first readable file of a spelling speaks for the others."""
        if self._parquet is None:
            try:
                schema = read_schema(info, self._objects)
            except ReadError as error:
                raise SourceError(f"{info.uri} cannot be read: {error}") from None
            except (pa.ArrowException, OSError):
                return "parquet"  # Damaged: its row will say so.
            if self._spec.format == "parquet" or self._holds_images(info, schema):
                check_columns(info.uri, schema.names, self._spec)
                self._parquet = "parquet"
            else:
                self._parquet = "manifest"
        return self._parquet

    def _holds_images(self, info: ObjectInfo, schema: pa.Schema) -> bool:
        if find_image_column(schema, self._spec.image_column, info.uri) is not None:
            return True
        if self._spec.uri_column in schema.names:
            return False
        raise SpecError(
            f"{info.uri} has neither a column of image bytes (source.image_column) nor one of URLs "
            f"(source.uri_column is {self._spec.uri_column!r}); it has {', '.join(map(repr, schema.names))}"
        )


def _to_batch(rows: list[Source]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {name: [getattr(row, name) for row in rows] for name in SOURCE_SCHEMA.names}, SOURCE_SCHEMA
    )


def _source(info: ObjectInfo, kind: Kind, columns: str | None = None) -> Source:
    return Source(info.uri, kind, info.size, info.etag, info.mtime_ns, columns)


def _canonical(spelled: str) -> str:
    return canonical_uri(os.path.expanduser(spelled))


def _spell(uri: str) -> str:
    """Spell for comparison with a pattern: paths as paths, even those that rows show as `file://` URLs."""
    return local_path(uri) if scheme_of(uri) == "file" else uri


def _base(folder: str) -> str:
    return _spell(folder).rstrip("/") + "/"


def _nothing(spelled: str, n_found: int, form: str) -> str:
    if n_found:
        return (
            f"source.uris: {spelled!r} holds {n_found} objects and no source of format {form!r}; "
            f"hidden names and {' '.join(sorted(COMPANION_ENDINGS))} are left out, unless they are named"
        )
    return (
        f"source.uris: {spelled!r} matches nothing: it is no object, no folder that holds one, no glob "
        "or prefix of one (a glob matches objects; add /** for all in a folder)"
    )
