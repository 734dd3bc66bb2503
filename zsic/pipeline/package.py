"""What of this machine a job on a cluster needs: its spec, its labels, and zsic itself."""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

import zsic
from zsic.core.errors import SpecError
from zsic.core.spec import JobSpec, LabelsSpec, change_labels, change_spec
from zsic.pipeline import entry
from zsic.storage.uri import scheme_of

SPEC = "spec.yaml"
ENTRY = "entry.py"
_FILES = ("path", "head")
"""Fields of a label set that name a file."""


def pack(spec: JobSpec, folder: Path) -> str:
    """Write into an empty folder what the job needs, and return the command that runs it there.

    The folder holds copies and nothing else: Ray leaves out of what it sends whatever a `.gitignore` above it
    names, and sends everything else that lies about.  Raises `SpecError` for what only this machine has.
    """
    spec = _for_elsewhere(spec)
    spec = change_labels(spec, [_pack_labels(each, i, folder) for i, each in enumerate(spec.labels)])
    (folder / SPEC).write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    (folder / entry.REQUIREMENTS).write_text(json.dumps(read_requirements()), encoding="utf-8")
    shutil.copyfile(entry.__file__, folder / ENTRY)
    shutil.copytree(Path(zsic.__file__).parent, folder / "zsic", ignore=shutil.ignore_patterns("__pycache__"))
    return f'exec "$(command -v python || command -v python3)" {ENTRY} run {SPEC}'


def _pack_labels(labels: LabelsSpec, number: int, folder: Path) -> dict[str, str]:
    """Copy the file of a label set, if this machine has it; gives the field that names it from now on."""
    packed = {}
    for name in _FILES:
        if (path := getattr(labels, name)) is not None and (file := Path(path)).is_file():
            packed[name] = f"labels{number or ''}{file.suffix.lower()}"
            shutil.copyfile(file, folder / packed[name])
    return packed


def read_requirements() -> dict[str, Any]:
    """What zsic needs wherever it runs: `python`, the least version, and `packages`, without those of extras."""
    python = importlib.metadata.metadata("zsic")["Requires-Python"].removeprefix(">=")
    packages = [text for text in importlib.metadata.requires("zsic") or [] if "extra ==" not in text]
    return {"python": python, "packages": packages}


def _for_elsewhere(spec: JobSpec) -> JobSpec:
    """The spec as it is read on another machine.

    An absolute path may be shared, or baked into an image; a relative one is of this machine for certain.
    """
    for uri in spec.source.uris:
        _refuse_relative("source.uris", uri)
    _refuse_relative("output.uri", spec.output.uri)
    if spec.model.name != "demo" and Path(spec.model.name).is_dir():
        _refuse_relative("model.name", spec.model.name)
    for each in spec.labels:
        for name in _FILES:
            if (path := getattr(each, name)) is not None and not Path(path).is_file():
                _refuse_relative(f"labels.{name}", path)
    return change_spec(spec, {"execution": {"address": "auto"}})


def _refuse_relative(field: str, spelled: str) -> None:
    if scheme_of(spelled) == "file" and not spelled.startswith(("/", "~", "file:")):
        raise SpecError(
            f"{field}: {spelled!r} is a path below the folder you are in, and the job runs elsewhere; name an object "
            "store (s3://...), or give the whole path of a folder that all machines of the cluster share"
        )
