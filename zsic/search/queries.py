"""From texts and pictures to the unit vectors that embeddings are compared with: by the model that made them.

Shape legend: T prompts, D embedding width.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic.core.decode import DecodeError
from zsic.core.errors import ModelError, SourceError, SpecError
from zsic.core.preprocess import prepare
from zsic.core.schema import read_metadata
from zsic.core.spec import DecodeSpec, ModelSpec, StoreSpec
from zsic.core.templates import render, resolve_templates
from zsic.core.wording import clean_sentence
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.storage.output import JOB
from zsic.storage.table import Table


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """What is looked for."""

    name: str
    """The text, or the name of the file."""
    vector_D: npt.NDArray[np.float32]


def read_job(table: Table) -> Mapping[str, Any]:
    """What decided the answers of an output."""
    data = table.store.read(JOB)
    fields = json.loads(data)["fields"] if data is not None else read_metadata(table.schema, "job")
    return fields if isinstance(fields, dict) else {}


def find_checkpoint(table: Table, model: str | None, store: StoreSpec) -> Checkpoint:
    """The model that the embeddings were made by: as their parts name it, or `model`, another name of it.

    Raises `SpecError` if there are no embeddings, and `ModelError` if the model has other weights.
    """
    uri = table.store.uri
    if "embedding" not in table.schema.names:
        raise SpecError(f"{uri} keeps no embeddings to search in; classify into another output with --embeddings")
    name, revision = read_metadata(table.schema, "model"), read_metadata(table.schema, "revision")
    if model is None and not isinstance(name, str):
        raise SpecError(f"--model is missing, for {uri} does not say which model it was made with")
    spec = ModelSpec(name=model) if model is not None else ModelSpec(name=str(name), revision=_text(revision))
    checkpoint = resolve(spec, store)
    wanted = str(read_job(table).get("model", {}).get("digest"))
    if checkpoint.digest != wanted:
        raise ModelError(
            f"--model: {spec.name} has other weights (digest {checkpoint.digest[:12]}) than those that made the "
            f"embeddings of {uri} ({name}, digest {wanted[:12]}); the two cannot be compared: give that model"
        )
    return checkpoint


def encode_texts(texts: Sequence[str], templates: Sequence[str], checkpoint: Checkpoint) -> list[Query]:
    """One query a text: the mean of its prompts, or the text as it is where there are no templates."""
    if not texts:
        return []
    sentences = resolve_templates(templates or ("none",), "--template")
    cleaned = [clean_sentence(text, "the text") for text in texts]
    if not all(cleaned):
        raise SpecError("a text to search for is empty; say what to look for")
    prompts = [[render(sentence, text) for sentence in sentences] for text in cleaned]
    encoder = TextEncoder(checkpoint)
    text_TD = encoder.encode([prompt for each in prompts for prompt in each])
    mean_D = text_TD.reshape(len(texts), len(sentences), -1).mean(axis=1)
    return [Query(text, _unit(vector_D)) for text, vector_D in zip(texts, mean_D, strict=True)]


def encode_pictures(paths: Sequence[Path], table: Table, checkpoint: Checkpoint) -> list[Query]:
    """One query a picture, decoded as the output's were.  Raises `SourceError` for a file that is no picture."""
    if not paths:
        return []
    decode = read_decode(table)
    encoder = ImageEncoder(checkpoint)
    found = []
    for path in paths:
        try:
            pixels_HW3 = prepare(path.read_bytes(), encoder.geometry, decode).pixels_HW3
        except OSError as error:
            raise SourceError(f"--image: {path}: {error.strerror}") from None
        except DecodeError as error:
            raise SourceError(f"--image: {path}: {error}") from None
        found.append(Query(str(path), _unit(encoder.encode(pixels_HW3[None])[0].numpy())))
    return found


def read_decode(table: Table) -> DecodeSpec:
    """How the output's images were decoded."""
    return DecodeSpec.model_validate(read_job(table).get("decode", {}))


def _unit(vector_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit_D: npt.NDArray[np.float32] = vector_D / max(np.linalg.norm(vector_D), np.float32(1e-12))
    return unit_D


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
