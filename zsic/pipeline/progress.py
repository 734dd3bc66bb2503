"""Gathering what all workers have done so far."""

from collections import Counter
from typing import Any

import ray

from zsic.pipeline.watch import Progress


class _Tally:
    """The actor that sums up."""

    def __init__(self) -> None:
        self._progress = Progress()

    def add(self, amounts: dict[str, float], outcomes: dict[str, int]) -> None:
        for name, amount in amounts.items():
            setattr(self._progress, name, getattr(self._progress, name) + amount)
        self._progress.outcomes.update(outcomes)

    def read(self) -> Progress:
        return self._progress


class Reporter:
    """A worker's hand on the tally.  Calls do not wait and cannot fail the work."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally

    def add_decoded(self, n_rows: int, n_bytes: int, fetch_s: float, decode_s: float) -> None:
        """Report a block of `n_rows` decoded images."""
        self._tally.add.remote({"n_decoded": n_rows, "n_bytes": n_bytes, "fetch_s": fetch_s, "decode_s": decode_s}, {})

    def add_encoded(self, n_images: int, encode_s: float) -> None:
        """Report a batch that went through the image tower."""
        self._tally.add.remote({"n_encoded": n_images, "encode_s": encode_s}, {})

    def add_outcomes(self, outcomes: list[str]) -> None:
        """Report the rows of a block that are ready to be written."""
        self._tally.add.remote({"n_rows": len(outcomes)}, dict(Counter(outcomes)))

    def read(self) -> Progress:
        """Fetch the sums."""
        progress: Progress = ray.get(self._tally.read.remote(), timeout=5)
        return progress


def start_reporter() -> Reporter:
    """Start the tally on the cluster; it takes no CPU from the stages."""
    return Reporter(ray.remote(num_cpus=0)(_Tally).remote())
