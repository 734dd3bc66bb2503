"""Specs of jobs that run in this process or on the shared Ray cluster."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.checkpoints import pictures, tiny_checkpoints
from support.runs import LABELS

from zsic.core.spec import JobSpec, make_spec

__all__ = ["pictures", "tiny_checkpoints"]


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.variant])])
def execution(request: pytest.FixtureRequest) -> dict[str, object]:
    """How a job runs: in this process and, as a variant, on the shared cluster."""
    if request.param == "local":
        return {"engine": "local", "no_progress_timeout_s": 120}
    return request.getfixturevalue("on_ray")  # type: ignore[no-any-return]


@pytest.fixture
def on_ray(cluster_address: str) -> dict[str, object]:
    """Fields to run a job on the shared cluster."""
    return {"engine": "ray", "address": cluster_address, "no_progress_timeout_s": 120}


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
