"""When a model's weights count as loaded: every tensor from a file, in its shape, none made up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from zsic.core.errors import ModelError
from zsic.models.checkpoint import Checkpoint
from zsic.models.config import read_plain_config
from zsic.models.families import IMAGE_PARTS, TEXT_PARTS

if TYPE_CHECKING:
    import torch


def load(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> Any:
    """Load both towers on the CPU, by default in float32, ready for inference.

    Raises `ModelError` if a weight is missing, has another shape, or cannot be read.  Weights that the model
    has no place for (a segmentation decoder, old position tables) are left out.
    """
    import torch
    from safetensors import SafetensorError

    model_class = _model_class(checkpoint)
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                str(checkpoint.folder),
                dtype=dtype or torch.float32,
                # Said here because the config may ask for another, which may be code to fetch.
                attn_implementation=_attention(model_class),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # so that they are in the report, with the others
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model.name: {checkpoint.name} cannot be loaded: {reason[:400]}") from error
    faults = [f"{key} is missing" for key in sorted(report["missing_keys"])]
    faults += [
        f"{key} is {tuple(found)} instead of {tuple(wanted)}"
        for key, found, wanted in sorted(report["mismatched_keys"])
    ]
    faults += report["error_msgs"]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelError(
            f"model.name: {checkpoint.name} is no whole {model_class.__name__}: "
            f"{', '.join(faults[:3])}{more}; these would be random numbers; "
            "use a complete checkpoint of both towers"
        )
    return model.eval().requires_grad_(False)


def load_image_tower(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> Any:
    """Load what encodes images, as `load` does; the text tower may be left out."""
    from zsic.models.vit import load_plain

    return load_plain(checkpoint, "image", dtype) or load(checkpoint, dtype=dtype)


def load_text_tower(checkpoint: Checkpoint) -> Any:
    """Load what encodes texts, as `load` does; the image tower may be left out."""
    from zsic.models.vit import load_plain

    return load_plain(checkpoint, "text") or load(checkpoint)


def drop_text(model: Any) -> None:
    """Free the text tower of a model that will encode images only."""
    _drop(model, TEXT_PARTS)


def drop_image(model: Any) -> None:
    """Free the image tower of a model that will encode text only."""
    _drop(model, IMAGE_PARTS)


def read_config(checkpoint: Checkpoint) -> Any:
    """The model's config, with the defaults of its class."""
    plain = read_plain_config(checkpoint)
    if plain is not None:
        return plain
    return _model_class(checkpoint).config_class.from_pretrained(str(checkpoint.folder), local_files_only=True)


def count_image_parameters(checkpoint: Checkpoint) -> int:
    """Count the weights that encoding images needs, from what the files say of themselves."""
    from safetensors import SafetensorError, safe_open

    # TIPSv2's files have another name for the text tower, and CLIPSeg's a decoder, which the towers do without.
    others = {*TEXT_PARTS, "text_encoder", "decoder"}
    try:
        files: list[Any] = [safe_open(path, framework="np") for path in checkpoint.weight_paths()]
        tensors = [(name, file.get_slice(name)) for file in files for name in file.keys()]  # noqa: SIM118  It is no dict.
    except (OSError, SafetensorError) as error:
        raise ModelError(f"model.name: {checkpoint.name} cannot be loaded: {error}") from error
    return sum(
        prod(tensor.get_shape())
        for name, tensor in tensors
        if "F" in tensor.get_dtype() and not others & set(name.split("."))
    )


def _model_class(checkpoint: Checkpoint) -> Any:
    import transformers  # seconds

    return getattr(transformers, checkpoint.family.model_class)


def _attention(model_class: Any) -> str:
    return "sdpa" if model_class._supports_sdpa else "eager"


def _drop(model: Any, parts: tuple[str, ...]) -> None:
    for part in parts:
        if hasattr(model, part):
            setattr(model, part, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and loading report off the terminal: what is wrong becomes an error."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
