"""Gathering what all workers have done so far."""

import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import ray
import ray.util

from zsic.pipeline import metrics
from zsic.pipeline.metrics import Meter
from zsic.pipeline.watch import Progress
from zsic.storage.pending import Pending


class _Tally:
    """The actor that sums up, and lets Prometheus know."""

    def __init__(self, output: str) -> None:
        self._progress = Progress()
        self._meter = Meter(output)
        self._pending: Pending | None = None
        self._encoders = 0

    def expect(self, pending: Pending, encoders: int) -> None:
        self._pending, self._encoders = pending, encoders

    def add(self, node: str, amounts: dict[str, float], outcomes: dict[str, int]) -> None:
        for name, amount in amounts.items():
            setattr(self._progress, name, getattr(self._progress, name) + amount)
        self._progress.outcomes.update(outcomes)
        self._record(node, amounts, outcomes)

    def read(self) -> Progress:
        # Ray drops a gauge that was not set for 20 s, and a block may take longer; the driver reads every second.
        self._set_gauges()
        return self._progress

    def _record(self, node: str, amounts: dict[str, float], outcomes: dict[str, int]) -> None:
        meter = self._meter
        for name, amount in amounts.items():
            match name:
                case "n_bytes":
                    meter.count(metrics.READ_BYTES, amount, node=node)
                case "n_encoded":
                    meter.observe(metrics.BATCH_IMAGES, amount, node=node)
                case "n_parts":
                    meter.count(metrics.PARTS, amount, node=node)
                case "busy_s":
                    meter.count(metrics.ENCODER_BUSY_SECONDS, amount, node=node)
                case "fetch_s" | "decode_s" | "encode_s" | "write_s":
                    meter.count(metrics.STAGE_SECONDS, amount, node=node, stage=name.removesuffix("_s"))
        for outcome, n in outcomes.items():
            meter.count(metrics.IMAGES, n, node=node, outcome=outcome)

    def _set_gauges(self) -> None:
        if self._pending is not None:
            self._meter.set(metrics.ENCODERS, self._encoders)
            left = self._progress.expect(self._pending) - self._progress.n_rows
            self._meter.set(metrics.PENDING_IMAGES, max(left, 0.0))


class Reporter:
    """A worker's hand on the tally.  Calls do not wait and cannot fail the work."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally
        self._last_end = 0.0

    def expect(self, pending: Pending, encoders: int) -> None:
        """Tell what is to come."""
        self._tally.expect.remote(pending, encoders)

    def add_decoded(self, n_rows: int, n_bytes: int, fetch_s: float, decode_s: float) -> None:
        """Report a block of `n_rows` decoded images."""
        self._add({"n_decoded": n_rows, "n_bytes": n_bytes, "fetch_s": fetch_s, "decode_s": decode_s})

    def add_encoded(self, n_images: int, encode_s: float) -> None:
        """Report a batch that went through the image tower, just now."""
        now = time.perf_counter()
        # Of blocks that overlap, each second counts once; exact unless one batch outlasts several others.
        busy_s = now - max(self._last_end, now - encode_s)
        self._last_end = now
        self._add({"n_encoded": n_images, "encode_s": encode_s, "busy_s": busy_s})

    def add_relabelled(self, n_rows: int, read_s: float, answer_s: float) -> None:
        """Report rows that had their embedding, and have answers now."""
        self._add({"n_decoded": n_rows, "n_encoded": n_rows, "fetch_s": read_s, "encode_s": answer_s})

    def add_outcomes(self, outcomes: Iterable[str] | Mapping[str, int]) -> None:
        """Report the rows of a block that are ready to be written, or how many of each outcome there are."""
        counts = Counter(outcomes)
        self._add({"n_rows": counts.total()}, dict(counts))

    def add_part(self, write_s: float) -> None:
        """Report a part that was written."""
        self._add({"n_parts": 1, "write_s": write_s})

    def read(self) -> Progress:
        """Fetch the sums."""
        progress: Progress = ray.get(self._tally.read.remote(), timeout=5)
        return progress

    def _add(self, amounts: dict[str, float], outcomes: dict[str, int] | None = None) -> None:
        self._tally.add.remote(_node(), amounts, outcomes or {})


@functools.cache
def _node() -> str:
    """The address of the machine that this process works on."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def start_reporter(output: str) -> Reporter:
    """Start the tally on the cluster, for a run into `output`; it takes no CPU from the stages."""
    return Reporter(ray.remote(num_cpus=0)(_Tally).remote(output))
