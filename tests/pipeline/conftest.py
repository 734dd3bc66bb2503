"""Specs of jobs that run on the shared Ray cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkpoints import pictures, tiny_checkpoints
from support.runs import LABELS

from zsic.core.spec import JobSpec, make_spec

__all__ = ["pictures", "tiny_checkpoints"]


@pytest.fixture
def spec_for(cluster_address: str, tmp_path: Path) -> Callable[..., JobSpec]:
    """Make a spec that runs on the shared cluster with the bundled model."""

    def make(source: object, output: object = tmp_path / "out", **fields: object) -> JobSpec:
        execution = {"address": cluster_address, "no_progress_timeout_s": 120}
        execution |= fields.pop("execution", {})  # type: ignore[call-overload]
        return make_spec(
            {
                "source": source,
                "labels": LABELS,
                "output": output if isinstance(output, dict) else str(output),
                "model": "demo",
                "execution": execution,
                **fields,
            }
        )

    return make
