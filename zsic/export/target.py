"""Where an export goes, and which export it is: so that the same command goes on, and another one is refused."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from zsic.core.errors import MismatchError, SpecError, StoreError
from zsic.core.fingerprint import canonical, differences
from zsic.core.spec import StoreSpec
from zsic.storage.disk_store import DiskStore
from zsic.storage.store import Store, open_store
from zsic.storage.uri import local_path, scheme_of

RECORD = "zsic-export.json"
"""A file, not a folder: of an ImageFolder, every folder is a label."""


class TreeStore(DiskStore):
    """A folder in which nothing lies but what is put there: no drafts of ours, which would be a label of their own.

    A file is whole once it has its name; that it survives a power loss is left to the system, as with any copy, and an
    empty one is taken for none.
    """

    def create(self, name: str, data: bytes) -> bool:
        path = self.root / name
        with self._explaining("write", name):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
            try:
                draft.write_bytes(data)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        return True


def open_target(uri: str, store: StoreSpec, *, as_tree: bool) -> Store:
    """Open the folder or `s3://` prefix of an export.  Raises `StoreError` for any other scheme."""
    if as_tree and scheme_of(uri) == "file":
        return TreeStore(Path(local_path(uri)).expanduser())
    return open_store(uri, store)


def check_record(target: Store, fields: Mapping[str, object]) -> None:
    """Raise `MismatchError`, with the fields that differ, if the folder holds another export; `SpecError` if else."""
    theirs = _read_record(target)
    # The record is what an export writes first.
    if theirs is None and (name := _other(target)):
        raise SpecError(
            f"--output: {target.uri} holds other files, such as {name}, which whoever reads the export would take for "
            "a part of it; choose an empty folder"
        )
    if theirs is not None and (told := differences(fields, {name: theirs.get(name) for name in fields})):
        listed = "\n  ".join(told).replace(", the output ", ", that one ")
        raise MismatchError(f"--output: {target.uri} holds another export:\n  {listed}\nChoose another folder.")


def _other(target: Store) -> str | None:
    """Something that is in the folder, hidden files left out; a store lists the files of a folder, and none below."""
    if isinstance(target, DiskStore):
        names = sorted(path.name for path in target.root.iterdir()) if target.root.is_dir() else []
        return next((name for name in names if not name.startswith(".")), None)
    return next((name for name, _ in target.list()), None)


def put_record(target: Store, fields: Mapping[str, object], labels: Mapping[str, str] | list[str]) -> None:
    """Write down which export the folder holds, and its labels."""
    data = json.dumps({**fields, "labels": labels}, indent=1, ensure_ascii=False).encode()
    if (theirs := target.read(RECORD)) is None:
        target.create(RECORD, data)
    elif canonical(json.loads(theirs)) != canonical(json.loads(data)):
        raise StoreError(
            f"--output: {target.uri}/{RECORD} has other labels for the same rows; export into another folder"
        )


def _read_record(target: Store) -> dict[str, object] | None:
    data = target.read(RECORD)
    if data is None:
        return None
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise SpecError(f"--output: {target.uri}/{RECORD} is no record of an export; choose another folder")
    return fields
