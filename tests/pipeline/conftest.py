"""Specs of jobs that run in this process or on the shared Ray cluster."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.checkpoints import pictures, tiny_checkpoints
from support.runs import LABELS

from zsic.core.spec import JobSpec, make_spec

__all__ = ["pictures", "tiny_checkpoints"]


@pytest.fixture
def spec_for(execution: dict[str, object], tmp_path: Path) -> Callable[..., JobSpec]:
    """Make a spec with the bundled model, for either engine."""
    return partial(_make_spec, execution, tmp_path)


@pytest.fixture
def ray_spec_for(on_ray: dict[str, object], tmp_path: Path) -> Callable[..., JobSpec]:
    """Make a spec with the bundled model, for the shared cluster."""
    return partial(_make_spec, on_ray, tmp_path)


def _make_spec(
    base: dict[str, object], folder: Path, source: object, output: object = None, **fields: object
) -> JobSpec:
    execution = base | fields.pop("execution", {})  # type: ignore[operator]
    return make_spec(
        {
            "source": source,
            "labels": LABELS,
            "output": output if isinstance(output, dict) else str(output or folder / "out"),
            "model": "demo",
            "execution": execution,
            **fields,
        }
    )
