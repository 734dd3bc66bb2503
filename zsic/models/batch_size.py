"""How many images a GPU takes at a time: measured once for each device and model, and remembered.

Shape legend: B images, H W pixels.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from zsic.core.cache import cache_folder, keep
from zsic.models.encoder import ImageEncoder

SIZES = (32, 64, 128, 256, 512, 1024)
"""Beyond the last, no tower gains; below the first, a GPU's launches take longer than its work."""

NEARLY_BEST = 0.98
"""A smaller batch that is nearly as fast is better: it needs less memory, and less is done again if it fails."""

_LEAST_S = 0.1
_log = logging.getLogger(__name__)


def find_batch_size(encoder: ImageEncoder) -> int:
    """The smallest size that is nearly as fast as any, within the device's memory; from the cache if it is there."""
    gpu = torch.cuda.get_device_properties(encoder.device)
    # Another share of the memory, another version of torch: another answer.
    key = f"{gpu.name} {gpu.total_memory >> 30} GiB, torch {torch.__version__}, {encoder.dtype}, {encoder.digest}"
    size = remember(key, lambda: choose(lambda size: _measure(encoder, size)))
    torch.cuda.empty_cache()
    return size


def remember(key: str, find: Callable[[], int]) -> int:
    """What was found under this key before, or what is found now."""
    path = cache_folder() / "batch_sizes.json"
    known = _read(path)
    if key not in known:
        known[key] = find()
        keep(path, json.dumps(known, indent=1).encode())
    return known[key]


def choose(measure: Callable[[int], float]) -> int:
    """Choose of `SIZES` by images/s; `measure` raises `torch.OutOfMemoryError` where there is too little memory."""
    rates: dict[int, float] = {}
    for size in SIZES:
        try:
            rates[size] = measure(size)
        except torch.OutOfMemoryError:
            break
        if rates[size] < NEARLY_BEST * max(rates.values()):  # past its best; larger ones are slower to try, too
            break
    if not rates:
        return SIZES[0] // 2  # from there on the batch is halved by whoever runs out of memory
    _log.info("images/s by batch size: %s", {size: round(rate) for size, rate in rates.items()})
    return next(size for size, rate in rates.items() if rate >= NEARLY_BEST * max(rates.values()))


def _measure(encoder: ImageEncoder, size: int) -> float:
    """Images/s of the tower on pixels that are on the device."""
    pixels_BHW3 = torch.randint(0, 256, (size, *encoder.geometry.size, 3), dtype=torch.uint8, device=encoder.device)
    encoder.embed(pixels_BHW3)
    torch.cuda.synchronize(encoder.device)
    started, n = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < _LEAST_S:
        for _ in range(2):
            encoder.embed(pixels_BHW3)
        torch.cuda.synchronize(encoder.device)
        n += 2 * size
    return n / elapsed


def _read(path: Path) -> dict[str, int]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: size for key, size in known.items() if type(size) is int and size > 0}
