"""What Prometheus hears of a run: every metric declared once, and the hand that records them.

They are recorded by the one process that sums up for the whole run, and tagged with the node that did the work.  Ray
keeps the counters of every process that ever lived on a node, and decode workers come and go: recorded there, a
cluster that stands for months would export ever more series.  `cluster/monitoring` holds what shows them.
"""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any, Literal

BOUNDS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Of batches, in images: those that a GPU is tried with, and those of CPUs below."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.  Its first tag is always the output, which is what tells runs apart."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """What Ray and Prometheus make of the name."""
        return f"ray_{self.name}" + {"counter": "_total", "gauge": "", "histogram": "_bucket"}[self.kind]


IMAGES = Metric(
    "zsic_images", "counter", "Images that left the encoder, failed ones among them.", ("output", "node", "outcome")
)
READ_BYTES = Metric("zsic_read_bytes", "counter", "Bytes of the images that were decoded.", ("output", "node"))
STAGE_SECONDS = Metric(
    "zsic_stage_seconds",
    "counter",
    "Wall seconds of fetch, decode, encode and write, summed over the tasks that ran side by side.",
    ("output", "node", "stage"),
)
ENCODER_BUSY_SECONDS = Metric(
    "zsic_encoder_busy_seconds",
    "counter",
    "Seconds in which an encoder had a batch under way; of 1 a second and encoder, the rest is waiting for pixels.",
    ("output", "node"),
)
BATCH_IMAGES = Metric("zsic_batch_images", "histogram", "Images in one forward pass.", ("output", "node"))
PARTS = Metric("zsic_parts", "counter", "Parquet parts that write tasks have put.", ("output", "node"))
ENCODERS = Metric(
    "zsic_encoders", "gauge", "Encoders that the run has asked for; on a cluster that grows, the least.", ("output",)
)
PENDING_IMAGES = Metric("zsic_pending_images", "gauge", "Images still to come; of shards, an estimate.", ("output",))

METRICS = (
    IMAGES,
    READ_BYTES,
    STAGE_SECONDS,
    ENCODER_BUSY_SECONDS,
    BATCH_IMAGES,
    PARTS,
    ENCODERS,
    PENDING_IMAGES,
)


class Meter:
    """Records metrics of one output.  It cannot fail the work, and where nobody exports them nothing happens."""

    def __init__(self, output: str) -> None:
        self._output = output

    def count(self, metric: Metric, amount: float, **tags: str) -> None:
        """Add to a counter."""
        if amount > 0:  # Ray refuses to add nothing
            self._record(metric, "inc", amount, tags)

    def set(self, metric: Metric, value: float, **tags: str) -> None:
        """Set a gauge."""
        self._record(metric, "set", value, tags)

    def observe(self, metric: Metric, value: float, **tags: str) -> None:
        """Enter a value into a histogram."""
        self._record(metric, "observe", value, tags)

    def _record(self, metric: Metric, verb: str, value: float, tags: dict[str, str]) -> None:
        with contextlib.suppress(Exception):
            getattr(_instrument(metric), verb)(value, {"output": self._output, **tags})


@functools.cache
def _instrument(metric: Metric) -> Any:
    """Ray's object for a metric: made where it is first used, once a process."""
    from ray.util import metrics

    match metric.kind:
        case "counter":
            return metrics.Counter(metric.name, metric.description, metric.tags)
        case "gauge":
            return metrics.Gauge(metric.name, metric.description, metric.tags)
        case "histogram":
            return metrics.Histogram(metric.name, metric.description, list(BOUNDS), metric.tags)
