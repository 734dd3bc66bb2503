"""How a checkpoint becomes a folder that a job may load: safetensors, complete, with its origin."""

import json
import pickle
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors.torch import save_file

from zsic.core.errors import ModelError
from zsic.models.checkpoint import FILES, RECORD, WEIGHTS, Checkpoint, fetch_hub, read_checkpoint, refuse_credentials
from zsic.models.encoder import TextEncoder
from zsic.models.processor import read_geometry

PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin")


def pull(name: str, output: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Copy the checkpoint `name`, a hub id or a local folder, into the new folder `output`.

    Weights that are there as pickles only are read without running code and written as safetensors.  The
    result is loaded once, whole, before `output` exists.  Raises `ModelError`.
    """
    refuse_credentials(name)
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"--output: {output} exists and is not an empty folder; name another or remove it")
    source = Path(name).expanduser()
    if not source.is_dir():
        source = fetch_hub(name, revision)
        if not _matching(source, WEIGHTS):
            source = fetch_hub(name, revision, files=(*FILES, *PICKLES))
        revision = source.name
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        for path in _matching(source, FILES):
            shutil.copyfile(path, folder / path.name)
        if not _matching(folder, WEIGHTS):
            _convert(_matching(source, PICKLES), folder, name)
        checkpoint = read_checkpoint(folder, name, revision=revision)
        read_geometry(checkpoint)
        TextEncoder(checkpoint)  # finds every weight of both towers and loads the tokenizer, or raises
        record = {"id": name, "revision": revision, "digest": checkpoint.digest}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        folder.replace(output)
    return read_checkpoint(output, str(output))


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if any(fnmatch(p.name, pattern) for pattern in patterns))


def _convert(pickles: list[Path], folder: Path, name: str) -> None:
    """Write the tensors of all pickles as one safetensors file; their names and dtypes stay."""
    if not pickles:
        raise ModelError(f"model.name: {name} has neither model.safetensors nor pytorch_model.bin; use one that has")
    tensors: dict[str, torch.Tensor] = {}
    for path in pickles:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ModelError(
                f"model.name: {path.name} of {name} holds more than tensors, or is damaged, and was not run; "
                f"use another checkpoint ({' '.join(str(error).split())[:200]})"
            ) from None
        # A copy each: safetensors has no tensors that share memory.
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[key] = value.clone().contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
