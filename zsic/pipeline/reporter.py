"""Reporting of what the stages have done: one method for each kind of work.  Imports no Ray."""

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping

from zsic.pipeline.watch import Progress


class Reporter(ABC):
    """What a stage holds to report its work.  Calls do not wait and cannot fail the work."""

    def __init__(self) -> None:
        self._last_end = 0.0

    def add_decoded(self, n_rows: int, n_bytes: int, fetch_s: float, decode_s: float) -> None:
        """Report a block of `n_rows` decoded images."""
        self._add({"n_decoded": n_rows, "n_bytes": n_bytes, "fetch_s": fetch_s, "decode_s": decode_s})

    def add_encoded(self, n_images: int, encode_s: float) -> None:
        """Report a batch that has just left the image tower."""
        now = time.perf_counter()
        # Each second of overlapping batches counts once; exact unless one batch outlasts several others.
        busy_s = now - max(self._last_end, now - encode_s)
        self._last_end = now
        self._add({"n_encoded": n_images, "encode_s": encode_s, "busy_s": busy_s})

    def add_relabelled(self, n_rows: int, read_s: float, answer_s: float) -> None:
        """Report rows that were scored from their stored embeddings."""
        self._add({"n_decoded": n_rows, "n_encoded": n_rows, "fetch_s": read_s, "encode_s": answer_s})

    def add_outcomes(self, outcomes: Iterable[str] | Mapping[str, int]) -> None:
        """Report the outcomes of a block that is ready to be written, one a row or counted."""
        counts = Counter(outcomes)
        self._add({"n_rows": counts.total()}, dict(counts))

    def add_part(self, write_s: float) -> None:
        """Report a part that was written."""
        self._add({"n_parts": 1, "write_s": write_s})

    @abstractmethod
    def read(self) -> Progress:
        """Return the sums of all reports."""

    @abstractmethod
    def _add(self, amounts: dict[str, float], outcomes: dict[str, int] | None = None) -> None:
        """Add amounts to the fields of `Progress` that have these names."""


class LocalReporter(Reporter):
    """Sums kept in this process, for stages that run in its threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._progress = Progress()

    def read(self) -> Progress:
        with self._lock:
            return self._progress.copy()

    def _add(self, amounts: dict[str, float], outcomes: dict[str, int] | None = None) -> None:
        with self._lock:
            self._progress.add(amounts, outcomes or {})
