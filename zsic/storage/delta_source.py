"""Which files of a folder are its Delta table now: what its log says, and not what lies there.

Data files never change, so each is a source like any other Parquet file; the log only picks those that count.  A run
compares all that the table lists with what the output holds, by uri: what was added since the last snapshot is what is
new, without a version to remember.
"""

from zsic.core.errors import SourceError
from zsic.storage.access import PassingError, ReadError, persist
from zsic.storage.delta import LOG, explain, list_paths, open_delta, require_deltalake
from zsic.storage.objects import Objects
from zsic.storage.uri import local_path, local_uri, scheme_of

SCHEMES = ("file", "s3", "s3a")
_HARMLESS = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "deletionVectors"})
"""Features of a table that say nothing of how its files are read; whether there are deletion vectors is looked up."""


def is_delta(folder: str, objects: Objects) -> bool:
    """Whether a folder is a Delta table."""
    return objects.is_folder(f"{folder.rstrip('/')}/{LOG}")


def list_live(folder: str, objects: Objects) -> set[str]:
    """The uris of the files that are the table now.

    Raises `SourceError` for a table whose files do not hold what it does: with deletion vectors, or renamed columns.
    """
    require_deltalake(f"source.uris: {folder} is a Delta table, which")
    if scheme_of(folder) not in SCHEMES:
        raise SourceError(f"source.uris: {folder} is a Delta table; they are read from disk and s3:// only")
    from deltalake.exceptions import DeltaError

    def attempt() -> set[str]:
        try:
            return _read(folder, objects)
        except (DeltaError, OSError) as error:
            raise PassingError(explain(error)) from error

    try:
        return persist(objects.store, attempt)
    except ReadError as error:
        raise SourceError(f"source.uris: the Delta table {folder} cannot be read: {error}") from None


def _read(folder: str, objects: Objects) -> set[str]:
    table = open_delta(folder, objects.store, anonymous=objects.store.s3_anonymous)
    if table is None:
        raise SourceError(f"source.uris: {folder} is no Delta table: it has no {LOG} with a version in it")
    mode = table.metadata().configuration.get("delta.columnMapping.mode") or "none"
    if unknown := set(table.protocol().reader_features or ()) - _HARMLESS or (
        {"columnMapping"} if mode != "none" else ()
    ):
        raise SourceError(
            f"source.uris: the Delta table {folder} uses {', '.join(sorted(unknown))}, so its files do not hold what "
            "it does; write it again without"
        )
    if any(batch.num_rows for batch in table.deletion_vectors()):
        raise SourceError(
            f"source.uris: the Delta table {folder} marks rows as deleted that are still in its files (deletion "
            "vectors); take them out first: REORG TABLE ... APPLY (PURGE)"
        )
    paths = list_paths(table)
    if absolute := [path for path in paths if "://" in path or path.startswith("/")]:
        raise SourceError(
            f"source.uris: the Delta table {folder} is a clone, and its files are elsewhere ({absolute[0]}); name "
            "the table that it was made from"
        )
    base = folder.rstrip("/")
    if scheme_of(folder) == "file":
        return {local_uri(f"{local_path(base)}/{path}") for path in paths}
    return {f"{base}/{path}" for path in paths}
