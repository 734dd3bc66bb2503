"""The two towers at work: pixels to unit vectors, prompts to unit vectors.

Shape legend: B images, H W pixels, T prompts, D embedding width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from zsic.core.errors import ModelError
from zsic.core.preprocess import Geometry
from zsic.core.scoring import Link
from zsic.models.checkpoint import Checkpoint
from zsic.models.int8 import Int8Tower
from zsic.models.processor import read_geometry, read_normalisation
from zsic.models.tokenizer import load_tokenizer
from zsic.models.tower import TorchTower
from zsic.models.weights import drop_image, load_image_tower, load_text_tower, read_config

__all__ = ["Dtype", "ImageEncoder", "TextEncoder", "read_geometry", "resolve_dtype"]

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


def resolve_dtype(dtype: str, device: str | torch.device) -> torch.dtype:
    """What `auto` is on a device: bfloat16 where a GPU computes in it, else float32.

    A CPU gets bfloat16 only when told to: without units for it, it is several times slower than float32.
    """
    if dtype != "auto":
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            raise ModelError(f"model.dtype is {dtype!r}; use auto, float32, bfloat16 or float16")
        return kind
    on_gpu = torch.device(device).type == "cuda"
    # Without `including_emulation=False`, GPUs that only emulate it count too.
    if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


class ImageEncoder:
    """The image tower of a checkpoint, with its normalisation fused in; the text tower is not kept.

    On a GPU every call works on the stream of the thread that calls, through pinned memory: of two threads, one's
    copies and one's waiting are hidden behind the other's arithmetic.  With the dtype `int8`, which is for CPUs, what
    goes in and comes out is float32.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint = checkpoint.on_this_machine()
        self.geometry: Geometry = read_geometry(checkpoint)
        self.device = torch.device(device)
        self.dtype = torch.float32 if dtype == "int8" else resolve_dtype(dtype, device)
        self.digest = checkpoint.digest
        self._normalise = read_normalisation(checkpoint).for_rows(self.geometry.size[1], self.device)
        config = read_config(checkpoint)
        _check_size(checkpoint, config.vision_config, self.geometry)
        self.dim = int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)
        self._tower: TorchTower | Int8Tower
        if dtype == "int8":
            self._tower = Int8Tower(checkpoint, self.geometry.size, threads=threads)
        else:
            self._tower = TorchTower(load_image_tower(checkpoint, dtype=self.dtype)).to(self.device)

    def encode(self, pixels_BHW3: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Float32 unit rows [B, D] on the device; NaN where the tower gives NaN, zeros where zeros."""
        on_gpu = self.device.type == "cuda"
        # Ray's arrays are read-only, which torch does not know, and pageable, from where a copy to the device waits
        # for itself.  Torch keeps the pinned memory for the next batch, and hands it out once the copy is over.
        staged_BHW3 = torch.empty(pixels_BHW3.shape, dtype=torch.uint8, pin_memory=on_gpu)
        staged_BHW3.numpy()[:] = pixels_BHW3
        return self.embed(staged_BHW3.to(self.device, non_blocking=on_gpu))

    @torch.inference_mode()
    def embed(self, pixels_BHW3: torch.Tensor) -> torch.Tensor:
        """The same, of uint8 pixels that are on the device."""
        x_B3HW = self._normalise(pixels_BHW3).to(self.dtype)
        return _unit(self._tower(x_B3HW))


class TextEncoder:
    """The text tower and tokenizer of a checkpoint, and the scale, bias and link that make scores of cosines.

    Always float32: text is encoded once a run, and its rounding would stay in every score.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str | torch.device = "cpu") -> None:
        checkpoint = checkpoint.on_this_machine()
        family = checkpoint.family
        self.digest = checkpoint.digest
        self.device = torch.device(device)
        self._tokenizer = load_tokenizer(checkpoint)
        tokenizer_class = str(checkpoint.read_json("tokenizer_config.json").get("tokenizer_class"))
        self._lower_case = tokenizer_class in family.lower_case
        self._padding = family.padding
        model = load_text_tower(checkpoint)
        self.token_limit = family.token_limit(model.config.text_config, self._tokenizer.limit)
        """Tokens of the longest prompt that is not cut, start and end marks included."""
        self.link: Link = family.link
        self.scale = family.read_scale(model)
        self.bias = family.read_bias(model)
        drop_image(model)
        self._model = model.to(self.device)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each prompt before it is cut, start and end marks included."""
        if not texts:
            return []
        return self._tokenizer.count(self._spell(texts))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_size: int = 128) -> npt.NDArray[np.float32]:
        """Unit rows [T, D], in the order of the texts.  What goes beyond the token limit is cut.

        Raises `ModelError` where the tower returns NaN or infinity.
        """
        batches = []
        # Prompts of one length share a batch, so that little is padded.
        lengths = self.count_tokens(texts)
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        for begin in range(0, len(order), batch_size):
            tokens = self._tokenizer.encode(
                self._spell([texts[i] for i in order[begin : begin + batch_size]]),
                self.token_limit,
                fill=self._padding == "max_length",
            )
            tokens = {name: each_TL.to(self.device) for name, each_TL in tokens.items()}
            batches.append(_unit(self._model.get_text_features(**tokens).pooler_output).cpu())
        if not batches:
            raise ValueError("there is no text to encode")
        sorted_TD = torch.cat(batches).numpy()
        if not np.isfinite(sorted_TD).all():
            raise ModelError("model.name: the text tower returned NaN or infinity; the checkpoint is damaged")
        text_TD = np.empty_like(sorted_TD)
        text_TD[order] = sorted_TD
        return text_TD

    def _spell(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._lower_case else list(texts)


def _unit(x_ND: torch.Tensor) -> torch.Tensor:
    """Rows of length 1, in float32.  The floor of the norm keeps zero rows zero."""
    return torch.nn.functional.normalize(x_ND.float(), dim=-1, eps=1e-12)


def _check_size(checkpoint: Checkpoint, vision_config: Any, geometry: Geometry) -> None:
    """See to it that the tower takes the pictures its processor makes."""
    size = vision_config.image_size
    expected = (size, size) if isinstance(size, int) else tuple(size)
    if not checkpoint.family.any_size and expected != geometry.size:
        raise ModelError(
            f"model.name: the image tower of {checkpoint.name} takes {expected} pixels, its image processor "
            f"makes {geometry.size}; repair size or crop_size in preprocessor_config.json"
        )
