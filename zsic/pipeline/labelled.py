"""Pictures whose label is known, as a head sees them: rows of an output, or folders of files; no Ray is needed.

Shape legend: N pictures, B of them at a time, C labels, D embedding width.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zsic.core.decode import DecodeError
from zsic.core.embedding import from_column
from zsic.core.errors import SourceError, SpecError
from zsic.core.preprocess import prepare
from zsic.core.spec import DecodeSpec, SourceSpec, StoreSpec
from zsic.evaluate.truth import NOTHING, UNTOLD, Match, Truth
from zsic.evaluate.vocabulary import Vocabulary
from zsic.models.checkpoint import Checkpoint
from zsic.models.encoder import ImageEncoder
from zsic.storage.kinds import IMAGE_ENDINGS, ending_of
from zsic.storage.origin import Origin, read_rows

MOST_ROWS = 200_000
"""Of an output, taken from all over it: shares and temperatures do not grow more certain by more."""
_MOST_PARTS = 200
_UNTOLD = -1
_BATCH = 32

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Embeddings of pictures whose truth is known."""

    image_ND: Floats
    unknown: dict[str, int]
    """Pictures by a label that the set does not have, which are left out; or the label is, where there are several."""
    failed: dict[str, str]
    """Files that could not be read, and why; they are left out."""
    digest: str
    """Tells these pictures and labels from others."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Known):
    """Pictures with one label each."""

    truth_N: Integers
    """The index of the label."""


@dataclass(frozen=True, slots=True, eq=False)
class Tagged(Known):
    """Pictures with several labels, or with none of the set's."""

    wanted_NC: Bools
    """Which labels are true of which picture."""


def open_output(uri: str, model_digest: str | None, store: StoreSpec) -> Origin:
    """Open an output with embeddings.  Raises `SpecError` if they are of another model."""
    try:
        origin = Origin.open(SourceSpec(uris=(uri,), format="output"), store)
    except (SpecError, SourceError) as error:
        raise type(error)(str(error).removeprefix("source.uris: ")) from None
    theirs = origin.fields["model"]["digest"]
    if model_digest is not None and theirs != model_digest:
        raise SpecError(
            f"{uri} has embeddings of another model ({origin.model}, weights {theirs[:16]}) than the labels are "
            f"compiled for ({model_digest[:16]}); compile them with --model {origin.model}"
        )
    return origin


def sample_rows(origin: Origin, columns: Sequence[str] = (), most: int = MOST_ROWS) -> Iterator[pa.RecordBatch]:
    """Rows that have an embedding, with it and some other columns: all, or as many from each of parts all over it.

    The same output gives the same rows.
    """
    parts = origin.snapshot.parts
    if len(parts) > _MOST_PARTS and origin.snapshot.n_rows > most:
        parts = tuple(parts[i] for i in np.linspace(0, len(parts) - 1, _MOST_PARTS).astype(int))
    n_rows = sum(part.n_rows for part in parts)
    share = min(1.0, most / max(n_rows, 1))
    for part in parts:
        table = read_rows(origin.store, part.name, [*dict.fromkeys([*columns, "embedding"])])
        if table is None:
            continue  # gone meanwhile: a sample may do without
        table = table.filter(pc.is_valid(table["embedding"]))
        n = round(share * table.num_rows)
        at_N = np.linspace(0, table.num_rows - 1, n).astype(np.int64) if n < table.num_rows else None
        table = table if at_N is None else table.take(pa.array(at_N))
        yield from table.combine_chunks().to_batches(max_chunksize=8_192)


def vectors(batch: pa.RecordBatch) -> Floats:
    """The embeddings of a batch, of which none is null."""
    image_BD: Floats = from_column(batch["embedding"]).astype(np.float32)
    return image_BD


def read_labelled(origin: Origin, truth: Truth, vocabulary: Vocabulary, most: int = MOST_ROWS) -> Labelled:
    """Rows of an output that have an embedding and one true label.  Raises `SpecError` if there are none."""
    n_labels = vocabulary.n_known

    def look_up(match: Match) -> tuple[Bools, Integers, list[str]]:
        names = match.labels.to_pylist()
        label_B = np.array([_UNTOLD if name is None else vocabulary.true(name) for name in names])
        is_known_B = (label_B >= 0) & (label_B < n_labels)
        unknown = [name for name, at in zip(names, label_B, strict=True) if at >= n_labels]
        return is_known_B, label_B[is_known_B], unknown

    return Labelled(*_read(origin, truth, most, look_up))


def read_tagged(origin: Origin, truth: Truth, vocabulary: Vocabulary, most: int = MOST_ROWS) -> Tagged:
    """Rows of an output that have an embedding and a truth of any number of labels.

    Raises `SpecError` if none has a label of the set, or the truth has one label an image, which would count what else
    is in it as wrong.
    """
    n_labels = vocabulary.n_known

    def look_up(match: Match) -> tuple[Bools, Bools, list[str]]:
        is_known_B = match.code_B != UNTOLD
        answers = [() if code == NOTHING else match.answers[code] for code in match.code_B[is_known_B].tolist()]
        wanted_BC, unknown = np.zeros((len(answers), n_labels), np.bool_), []
        for row, answer in enumerate(answers):
            for name in answer:
                if (at := vocabulary.true(name)) < n_labels:
                    wanted_BC[row, at] = True
                else:
                    unknown.append(name)
        return is_known_B, wanted_BC, unknown

    found = Tagged(*_read(origin, truth, most, look_up))
    if not truth.lists:
        raise SpecError(
            "truth: mode is multi, and this truth has one label an image; what else is in it would count as wrong.  "
            "Give lists of all labels that are true of it (`red;star` in CSV)"
        )
    return found


def _read(
    origin: Origin, truth: Truth, most: int, look_up: Callable[[Match], tuple[Bools, npt.NDArray[Any], list[str]]]
) -> tuple[Floats, dict[str, int], dict[str, str], str, npt.NDArray[Any]]:
    """Fields of `Known`, and truths; `look_up` tells which rows of a batch have one, theirs, and unknown labels."""
    unknown: Counter[str] = Counter()
    images: list[Floats] = []
    truths: list[npt.NDArray[Any]] = []
    digest = hashlib.sha256(f"{origin.fingerprint} {origin.snapshot.sequence}".encode())
    n_rows, n_true, sought = 0, 0, ""
    for batch in sample_rows(origin, truth.columns, most):
        if not len(batch):
            continue
        match = truth.match(batch)
        n_rows, sought = n_rows + len(batch), sought or match.sought
        is_known_B, truth_B, others = look_up(match)
        n_true += int(truth_B.any(axis=1).sum()) if truth_B.ndim > 1 else len(truth_B)
        unknown.update(others)
        digest.update(is_known_B.tobytes() + truth_B.tobytes())
        images.append(vectors(batch)[is_known_B])
        truths.append(truth_B)
    if not n_true:
        told = f"; of others there are {_listed(unknown)}" if unknown else f"; looked for {sought!r} first"
        if truth.several:
            told += "; where images have several labels, only a set of mode: multi learns from them"
        raise SpecError(f"truth: none of {n_rows:,} rows with an embedding has a label of the set{told}")
    return np.concatenate(images), dict(unknown.most_common()), {}, digest.hexdigest(), np.concatenate(truths)


def read_examples(folder: Path, vocabulary: Vocabulary, checkpoint: Checkpoint, decode: DecodeSpec) -> Labelled:
    """Encode the pictures of a folder that has a folder for each label.  Raises `SpecError` if there are none."""
    if not folder.is_dir():
        raise SpecError(f"examples: {folder} is no folder; it holds a folder of pictures for each label")
    encoder = ImageEncoder(checkpoint)
    unknown: dict[str, int] = {}
    failed: dict[str, str] = {}
    pixels, truths, images = [], [], []
    digest = hashlib.sha256()
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in inner.rglob("*") if ending_of(path.name) in IMAGE_ENDINGS and not path.is_dir())
        label = vocabulary.true(inner.name)
        if label >= vocabulary.n_known:
            unknown[inner.name] = len(files)
            continue
        for path in files:
            try:
                data = path.read_bytes()
                pixels.append(prepare(data, encoder.geometry, decode).pixels_HW3)
            except DecodeError as error:
                failed[str(path)] = f"{error.failure.outcome}: {error.failure.detail}"
                continue
            except OSError as error:
                failed[str(path)] = str(error.strerror)
                continue
            truths.append(label)
            digest.update(f"{vocabulary.names[label]} {hashlib.sha256(data).hexdigest()}\n".encode())
            if len(pixels) == _BATCH:
                images.append(encoder.encode(np.stack(pixels)).numpy())
                pixels = []
    if pixels:
        images.append(encoder.encode(np.stack(pixels)).numpy())
    if not truths and failed:
        first, why = next(iter(failed.items()))
        raise SpecError(f"examples: none of {len(failed):,} files in {folder} could be read; {first}: {why}")
    if not truths:
        told = f"; it has {_listed(unknown)}" if unknown else ""
        raise SpecError(f"examples: {folder} has no folder with pictures that is named as a label is{told}")
    return Labelled(np.concatenate(images), unknown, failed, digest.hexdigest(), np.array(truths))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(repr(name) for name in list(counts)[:5]) + (" ..." if len(counts) > 5 else "")
