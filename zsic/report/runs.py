"""What the runs of an output did, by the records that they left: `OUT/_zsic/runs/*.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zsic.storage.store import Store

FOLDER = "_zsic/runs"
MOST_READ = 200
STAGES = ("fetch", "decode", "encode", "write")
"""The stages whose seconds, summed over workers, stand in a record beside the steps of the run."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run."""

    state: str
    started: str
    ended: str
    n_rows: int
    """That this run brought; those that earlier attempts had left are not among them."""
    images_per_s: float | None
    stage_s: dict[str, float]
    """Seconds of each stage, summed over workers; empty where nothing flowed, or the run stopped."""
    step_s: dict[str, float]
    """Wall seconds of each step."""
    n_images: dict[str, int]
    """Images that passed each stage, as far as it was counted."""
    n_bytes: int
    n_workers: dict[str, int]
    n_nodes: int
    reason: str | None = None
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """Wall seconds in all."""
        return sum(self.step_s.values())

    def rate_of(self, stage: str) -> float | None:
        """Images/s of one worker of a stage while it works."""
        seconds = self.stage_s.get(stage, 0.0)
        return self.n_images.get(stage, 0) / seconds if seconds > 0 and self.n_images.get(stage) else None


def read_runs(store: Store) -> tuple[list[Run], int]:
    """Read the latest records, oldest first, and say how many there are; what is no record is left out."""
    names = sorted(name for name, _ in store.list(FOLDER) if name.endswith(".json"))
    runs = []
    for name in names[-MOST_READ:]:
        try:
            runs.append(_parse(json.loads(store.read(name) or b"{}")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # of another version, or damaged: a report does without it
    return runs, len(names)


def _parse(record: Mapping[str, Any]) -> Run:
    seconds = {str(name): float(value) for name, value in record["seconds"].items()}
    progress, layout = record.get("progress") or {}, record.get("layout") or {}
    flowed = record["state"] == "complete" and bool(progress.get("n_rows"))
    n_decoded = int(progress.get("n_decoded", 0))
    return Run(
        state=str(record["state"]),
        started=str(record["started"]),
        ended=str(record["ended"]),
        n_rows=int(record.get("n_rows", 0)) - int(record.get("n_rows_before", 0)),
        images_per_s=float(record["images_per_s"]) if flowed else None,
        stage_s={stage: seconds[stage] for stage in STAGES if stage in seconds} if flowed else {},
        step_s={name: value for name, value in seconds.items() if name not in STAGES},
        n_images={
            "fetch": n_decoded,
            "decode": n_decoded,
            "encode": int(progress.get("n_encoded", 0)),
            "write": int(progress.get("n_rows", 0)),
        },
        n_bytes=int(progress.get("n_bytes", 0)),
        n_workers={
            "fetch": int(layout.get("decode_tasks", 0)),
            "decode": int(layout.get("decode_tasks", 0)),
            "encode": int(layout.get("encoders", 0)),
            "write": int(layout.get("write_tasks", 0)),
        },
        n_nodes=len(record.get("nodes") or ()),
        reason=None if record.get("reason") is None else str(record["reason"]),
        versions=tuple((str(name), str(value)) for name, value in (record.get("versions") or {}).items()),
    )
