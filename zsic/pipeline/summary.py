"""What a run did, in numbers: returned, printed, and kept beside the output.

OUT/_zsic/runs/<time>-<random>.json
"""

import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import zsic
from zsic.core.spec import JobSpec
from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.watch import Progress
from zsic.storage.store import Store

if TYPE_CHECKING:
    from zsic.pipeline.agreement import Agreement

RUNS = "_zsic/runs"
MAX_READ = 30
"""Records that are looked at for a rate: a night that brings little tells none, and there may be years of them."""
_PACKAGES = ("ray", "torch", "transformers", "pillow", "pyarrow")


@dataclass(frozen=True)
class RunSummary:
    """What a run did, and what the output holds now."""

    output: str
    fingerprint: str
    state: str
    """`complete`, `unchanged` when there was nothing to do, or `stopped`."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    reason: str | None = None
    """Why it stopped."""
    resumed: bool = False
    n_sources: int = 0
    """Of the increment."""
    n_rows: int = 0
    """Of the increment, those of earlier attempts among them."""
    n_rows_before: int = 0
    """Rows that earlier attempts had left."""
    n_rows_in_all: int = 0
    """Rows of the table."""
    n_redone: int = 0
    """Sources of the increment that were there before: changed since, or tried again."""
    n_dropped: int = 0
    """Sources whose rows were dropped, because they are gone and `update.prune` was set."""
    n_superseded: int = 0
    """Rows of before that the increment replaced or dropped."""
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by step, and the stages' own seconds summed over workers."""
    images_per_s: float = 0.0
    """Of this run, while images flowed; the workers' start is part of that."""
    steady_images_per_s: float | None = None
    """The same since the workers stood, which is what `plan --sample` predicts; None if it was too short to tell."""
    has_delta_table: bool = False
    """Whether a Delta table follows the output."""
    engine: str | None = None
    """`ray` or `local`; None if nothing was left to execute."""
    progress: Progress | None = None
    layout: Layout | None = None
    nodes: tuple[Node, ...] = ()
    agreement: "Agreement | None" = None
    """Of int8 with float32, where it was measured: when an output is begun."""


def last_rate(store: Store) -> float | None:
    """Images/s of an output's latest run that took long enough to tell; None if none of the last ones did."""
    for name in sorted((name for name, _ in store.list(RUNS)), reverse=True)[:MAX_READ]:
        record = json.loads(store.read(name) or b"{}")
        # One that stopped has no rate: how many of its rows got into parts was not counted.
        if record.get("state") == "complete" and record.get("seconds", {}).get("flow", 0.0) > 60:
            return float(record["images_per_s"])
    return None


def record_summary(store: Store, summary: RunSummary, spec: JobSpec) -> None:
    """Keep the summary beside the output: for people, for schedulers, and for the next run's guess of the rate."""
    ended = datetime.now(UTC)
    record = asdict(replace(summary, progress=None)) | {
        "progress": vars(summary.progress) if summary.progress else None,
        "started": summary.started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "execution": spec.execution.model_dump(),
        "versions": {name: version(name) for name in _PACKAGES} | {"zsic": zsic.__version__},
    }
    data = json.dumps(record, indent=1).encode()
    store.create(f"{RUNS}/{ended:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.json", data)
