"""Sums of what the workers of a Ray run have done, kept by one actor, which also feeds Prometheus."""

import functools
from typing import Any

import ray
import ray.util

from zsic.pipeline import metrics
from zsic.pipeline.metrics import Meter
from zsic.pipeline.reporter import Reporter
from zsic.pipeline.watch import Progress
from zsic.storage.pending import Pending


class _Tally:
    """The actor that sums up, and exports the sums to Prometheus."""

    def __init__(self, output: str) -> None:
        self._progress = Progress()
        self._meter = Meter(output)
        self._pending: Pending | None = None
        self._encoders = 0

    def expect(self, pending: Pending, encoders: int) -> None:
        self._pending, self._encoders = pending, encoders

    def add(self, node: str, amounts: dict[str, float], outcomes: dict[str, int]) -> None:
        self._progress.add(amounts, outcomes)
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


class TallyReporter(Reporter):
    """Reports to the tally, from any worker."""

    def __init__(self, tally: Any) -> None:
        super().__init__()
        self._tally = tally

    def expect(self, pending: Pending, encoders: int) -> None:
        """Report what is to come."""
        self._tally.expect.remote(pending, encoders)

    def read(self) -> Progress:
        progress: Progress = ray.get(self._tally.read.remote(), timeout=5)
        return progress

    def _add(self, amounts: dict[str, float], outcomes: dict[str, int] | None = None) -> None:
        self._tally.add.remote(_node(), amounts, outcomes or {})


@functools.cache
def _node() -> str:
    """The address of the machine that this process works on."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def start_reporter(output: str) -> TallyReporter:
    """Start the tally on the cluster, for a run into `output`; it takes no CPU from the stages."""
    return TallyReporter(ray.remote(num_cpus=0)(_Tally).remote(output))
