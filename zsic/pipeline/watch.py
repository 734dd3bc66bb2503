"""What a run tells those who watch it.  Imports no Ray, so that a view costs nothing before the run."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from zsic.storage.pending import TAR_OVERHEAD_BYTES, Pending

STAGES = ("fetch", "decode", "encode", "write")
"""What images pass; the names under which a summary has the stages' own seconds, beside the steps of the run."""


@dataclass
class Progress:
    """Sums over all workers since the start of the run.

    For the eye only: a task that is run again counts again.  What is true is counted from the parts.
    """

    n_decoded: int = 0
    n_bytes: int = 0
    """Bytes of the images that were decoded."""
    n_encoded: int = 0
    n_rows: int = 0
    """Rows that left the encoder, failed images among them."""
    fetch_s: float = 0.0
    """Seconds that decode tasks waited for bytes, summed over tasks."""
    decode_s: float = 0.0
    """Seconds that decode tasks spent on the rest, summed over tasks."""
    encode_s: float = 0.0
    """Seconds that encoders spent on batches, summed over the batches that they had at once."""
    busy_s: float = 0.0
    """Seconds in which an encoder had a batch under way, summed over encoders."""
    n_parts: int = 0
    write_s: float = 0.0
    """Seconds that write tasks took for their parts, summed over tasks."""
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def n_failed(self) -> int:
        """Rows without a prediction."""
        return self.n_rows - self.outcomes["ok"]

    @property
    def stage_s(self) -> dict[str, float]:
        """Seconds of each stage."""
        return {stage: float(getattr(self, f"{stage}_s")) for stage in STAGES}

    def add(self, amounts: Mapping[str, float], outcomes: Mapping[str, int]) -> None:
        """Add amounts to the fields of these names, and to the outcomes."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)
        self.outcomes.update(outcomes)

    def copy(self) -> "Progress":
        """Return the sums as they are now, for another thread."""
        return replace(self, outcomes=self.outcomes.copy())

    def expect(self, pending: Pending) -> float:
        """Images in all: counted, or scaled up from the bytes that were read so far."""
        if pending.exact or not self.n_decoded:
            return float(pending.n_images)
        n_bytes = self.n_bytes + TAR_OVERHEAD_BYTES * self.n_decoded  # as what is pending was estimated
        return max(self.n_decoded * pending.n_bytes / n_bytes, float(self.n_decoded))


class Watch:
    """Whom a run tells what it does; this one does not listen."""

    def on_step(self, text: str) -> None:
        """Hear that a step begins, in words."""

    def on_start(self, pending: Pending) -> None:
        """Hear that images are about to flow."""

    def on_progress(self, progress: Progress) -> None:
        """Hear how far it is, about once a second while images flow; comes from another thread."""


class Clock:
    """Wall seconds between laps."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Enter the seconds since the last lap under a name."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
