"""Where a checkpoint lies, what it is, and whether it may be loaded at all.

Nothing here opens weights: a checkpoint is judged by its file names and its JSON.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from zsic.core.cache import cache_folder
from zsic.core.errors import ModelError
from zsic.core.secrets import ADVICE, holds_credentials
from zsic.core.spec import ModelSpec, StoreSpec
from zsic.models.families import Family, find_family

CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
FILES = (*CONFIGS, *TOKENIZER_FILES, *WEIGHTS)
"""All that is ever fetched or read of a checkpoint; the weights as safetensors alone."""

RECORD = "zsic.json"
"""What `zsic model pull` writes beside the files: id, revision and digest."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is on this machine, complete by its files, of a supported family and without code."""

    name: str
    """As the user wrote it."""
    folder: Path
    model_type: str
    revision: str | None
    """Commit on the hub; None for a folder of unknown origin."""
    digest: str
    """SHA-256 over the SHA-256 of each file that decides an answer."""
    store: StoreSpec

    @property
    def family(self) -> Family:
        """How this kind of model is treated."""
        return find_family(self.model_type, self.name)

    def read_json(self, file: str) -> dict[str, Any]:
        """One of the JSON files; empty if there is none of this name."""
        return _read_json(self.folder / file, self.name)

    def weight_paths(self) -> list[Path]:
        """The safetensors files with the weights."""
        names = _weight_files(self.folder, self.name)
        return [self.folder / name for name in sorted(names) if name.endswith(".safetensors")]

    def on_this_machine(self) -> "Checkpoint":
        """The same files on the machine that asks; fetched where they are missing.

        Raises `ModelError` if what is found by this name has other contents.
        """
        if self.folder.is_dir():
            return self
        found = resolve(ModelSpec(name=self.name, revision=self.revision), self.store)
        if found.digest != self.digest:
            raise ModelError(
                f"model.name: {self.name} has digest {found.digest[:12]} on this machine, and "
                f"{self.digest[:12]} where the job was started; put the same files on every machine"
            )
        return found


def resolve(spec: ModelSpec, store: StoreSpec | None = None) -> Checkpoint:
    """Find the checkpoint that a spec names: `demo`, a local folder, a URL, or a hub id.

    A URL is copied into `~/.cache/zsic/models`, the hub keeps its own cache.  Raises `ModelError`.
    """
    store = store or StoreSpec()
    name = spec.name
    refuse_credentials(name)
    if name == "demo":
        from zsic.demo import MODEL_PATH

        return read_checkpoint(Path(MODEL_PATH), name)
    if "://" in name:
        return read_checkpoint(_fetch_url(name, store), name, store=store)
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = read_checkpoint(folder, name)
        if spec.revision not in (None, found.revision):
            raise ModelError(
                f"model.revision is {spec.revision}, but {name} is a local folder of revision "
                f"{found.revision}; leave it out"
            )
        return found
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ModelError(f"model.name: there is no folder {name}; give a folder, a hub id, or demo")
    folder = fetch_hub(name, spec.revision)
    return read_checkpoint(folder, name, revision=folder.name)


def refuse_credentials(name: str) -> None:
    """Raise `ModelError`, which does not repeat them, if a URL holds credentials."""
    if holds_credentials(name):
        raise ModelError(f"model.name: a URL holds credentials; {ADVICE}")


def read_checkpoint(
    folder: Path, name: str, *, revision: str | None = None, store: StoreSpec | None = None
) -> Checkpoint:
    """Judge a folder by its files.  Raises `ModelError` that names `name` and says what to do."""
    config = _read_json(folder / "config.json", name)
    if not config:
        raise ModelError(f"model.name: {name} has no config.json; give a checkpoint of transformers")
    _refuse_code(folder, name)
    model_type = str(config.get("model_type"))
    find_family(model_type, name)
    if config.get("quantization_config"):
        raise ModelError(f"model.name: {name} is quantised; use the checkpoint it was made of")
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"model.name: {name} is an adapter; merge it into its model and save that")
    others = {file for file in (*CONFIGS, *TOKENIZER_FILES) if (folder / file).is_file()}
    digest = _digest(folder, others | _weight_files(folder, name))
    record = _read_json(folder / RECORD, name)
    if record and record.get("digest") != digest:
        raise ModelError(
            f"model.name: the files of {name} have changed since `zsic model pull` ({RECORD} says so); "
            f"pull again, or delete {RECORD} if the change is meant"
        )
    return Checkpoint(
        name=name,
        folder=folder.absolute(),
        model_type=model_type,
        revision=revision or record.get("revision"),
        digest=digest,
        store=store or StoreSpec(),
    )


def fetch_hub(name: str, revision: str | None, *, files: tuple[str, ...] = FILES) -> Path:
    """Bring a checkpoint from the hub, or from the hub's cache; the folder is named by its commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionResolutionError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError, RevisionResolutionError) as error:
        # All that the hub raises (not found, gated, offline, refused) is of these kinds.
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model.name: {name} is no folder here, and asking the hub for {name} "
            f"(revision {revision or 'main'}) failed: {reason[:300]}; check the id, run "
            f"`zsic model pull {name} --output DIR` where the hub can be reached, and give DIR as the model"
        ) from None


def _fetch_url(url: str, store: StoreSpec) -> Path:
    """Copy a checkpoint from an object store; the local folder is named by what the listing says of it."""
    import fsspec

    options: dict[str, object] = {}
    if url.lower().startswith("s3://"):
        options = {"endpoint_url": store.s3_endpoint_url, "anon": store.s3_anonymous}
    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
        listing = {
            Path(path).name: info
            for path, info in sorted(fs.find(root, maxdepth=1, detail=True).items())
            if any(fnmatch(Path(path).name, pattern) for pattern in (*FILES, RECORD))
        }
        if not listing:
            raise ModelError(f"model.name: {url} holds no checkpoint; give the folder that has config.json")
        version = [
            (file, info.get("size"), str(info.get("ETag") or info.get("mtime") or info.get("LastModified")))
            for file, info in listing.items()
        ]
        stamp = hashlib.sha256(json.dumps([url, version]).encode()).hexdigest()[:16]
        target = cache_folder() / "models" / f"{Path(root).name}-{stamp}"
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / "checkpoint"
            partial.mkdir()
            for file, info in listing.items():
                fs.get_file(info["name"], str(partial / file))
            try:
                partial.rename(target)
            except OSError:  # another process was first, with the same files
                if not target.is_dir():
                    raise
        return target
    except ModelError:
        raise
    except Exception as error:  # each kind of store raises its own kinds of errors
        raise ModelError(
            f"model.name: {url} cannot be fetched: {error}; check the URL and store.s3_endpoint_url"
        ) from error


def _refuse_code(folder: Path, name: str) -> None:
    for file in CONFIGS:
        if any(_find_auto_map(_read_json(folder / file, name))):
            raise ModelError(
                f"model.name: {name} asks to run its own Python ({file} has auto_map), which zsic never "
                "does; use a checkpoint of a family that transformers has itself"
            )


def _find_auto_map(value: Any) -> Iterator[Any]:
    """Every `auto_map` at any depth: nested ones have overridden `trust_remote_code` (CVE-2026-5241)."""
    if isinstance(value, dict):
        if value.get("auto_map"):
            yield value["auto_map"]
        for inner in value.values():
            yield from _find_auto_map(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _find_auto_map(inner)


def _weight_files(folder: Path, name: str) -> set[str]:
    """The files that hold the weights, an index included.  Raises `ModelError` unless all are safetensors."""
    if (folder / "model.safetensors").is_file():
        return {"model.safetensors"}
    index = _read_json(folder / "model.safetensors.index.json", name)
    if index:
        named = index.get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
            raise ModelError(f"model.name: model.safetensors.index.json of {name} has no weight_map; fetch it again")
        shards = set(named.values())
        for shard in sorted(shards):
            if not fnmatch(shard, "model-*.safetensors") or not (folder / shard).is_file():
                raise ModelError(f"model.name: {name} lacks {shard}, which its index names; fetch it again")
        return {"model.safetensors.index.json", *shards}
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    found = f"its weights only as {pickles[0]}, a pickle" if pickles else "no model.safetensors"
    raise ModelError(
        f"model.name: {name} has {found}; run `zsic model pull {name} --output DIR`, which converts "
        "pytorch_model.bin safely, and give DIR as the model"
    )


def _digest(folder: Path, files: set[str]) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        with (folder / file).open("rb") as stream:
            total.update(f"{file} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _read_json(path: Path, name: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model.name: {path.name} of {name} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"model.name: {path.name} of {name} is not a JSON object")
    return value
