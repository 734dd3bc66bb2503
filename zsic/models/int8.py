"""An image tower whose weights and products are int8, run by ONNX Runtime: about twice torch's speed on a CPU.

Made of the checkpoint on the machine that runs it, once, and kept in the cache.  Activations are scaled by batch as
they come (dynamic quantisation), so nothing need be calibrated; how often answers change is measured on the user's own
images (`zsic.pipeline.agreement`).

Shape legend: B images, H W pixels, D embedding width.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsic.core.cache import cache_folder, keep, one_at_a_time
from zsic.core.errors import ModelError
from zsic.models.checkpoint import Checkpoint
from zsic.models.weights import load

if TYPE_CHECKING:
    import torch

_PACKAGES = ("onnxruntime", "onnx", "onnxscript")
_RECIPE = 1
"""Of `_quantise`; another one makes other files."""


def require_onnx() -> None:
    """Raise `ModelError` where the packages of the extra are not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"model.quantize is int8, which needs {' and '.join(missing)} on every machine; "
            "install them: pip install -c constraints.txt '.[int8]' (in zsic's repository)"
        )


class Int8Tower:
    """From normalised pixels to embeddings of any length; threads may call."""

    def __init__(self, checkpoint: Checkpoint, size: tuple[int, int], *, threads: int | None = None) -> None:
        """Of pictures of this height and width."""
        require_onnx()
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait would take their core from the decode tasks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            _find(checkpoint, size, onnxruntime.__version__), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """Float32 [B, D]."""
        import torch

        (image_BD,) = self._session.run(None, {"x_B3HW": x_B3HW.contiguous().numpy()})
        return torch.from_numpy(image_BD)


def _find(checkpoint: Checkpoint, size: tuple[int, int], version: str) -> bytes:
    """The quantised tower as an ONNX file: from the cache, or made and put there."""
    path = cache_folder() / "int8" / f"{checkpoint.digest}-{_RECIPE}-onnxruntime-{version}.onnx"
    # The encoders of a machine start at once, and making one takes memory for several.
    with one_at_a_time(path):
        with contextlib.suppress(OSError):
            return path.read_bytes()
        data = _quantise(checkpoint, size)
        keep(path, data)
    return data


def _quantise(checkpoint: Checkpoint, size: tuple[int, int]) -> bytes:
    """Export the tower, and make int8 of the weights of its matrix products."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from zsic.models.tower import TorchTower

    tower = TorchTower(load(checkpoint))
    with tempfile.TemporaryDirectory(prefix="zsic-") as folder, _quiet():
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "int8.onnx"
        try:
            torch.onnx.export(
                tower,
                (torch.zeros(2, 3, *size),),
                whole,
                input_names=["x_B3HW"],
                output_names=["image_BD"],
                dynamic_shapes=({0: torch.export.Dim("B")},),
                dynamo=True,
                verbose=False,
                external_data=True,  # a file of its own for the weights: protobuf ends at 2 GB
            )
            del tower
            quantize_dynamic(
                whole,
                small,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                # Of 7 bits: products of 8 overflow in pairs on CPUs without VNNI, and answers would depend on the CPU.
                reduce_range=True,
            )
        # Exporters raise whatever they met.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"model.quantize: the image tower of {checkpoint.name} cannot be made int8: {reason[:300]}; "
                "leave it out"
            ) from error
        data = small.read_bytes()
    if b"MatMulInteger" not in data and b"DynamicQuantizeMatMul" not in data:
        raise ModelError(
            f"model.quantize: the image tower of {checkpoint.name} has no product to make int8; leave it out"
        )
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what exporters tell about packages and pre-processing."""
    loggers: list[Any] = [logging.getLogger(), logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
