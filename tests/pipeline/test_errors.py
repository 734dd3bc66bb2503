"""What stops a run is told by its cause, and ends with the right exit code."""

import pickle
from collections.abc import Callable

import pytest
import ray.exceptions
from ray.data.exceptions import ExecutionTimeoutError

from zsic.core.errors import IncompleteError, ModelError, StoreError, ZsicError
from zsic.pipeline.execute import explain_stop
from zsic.pipeline.ray_engine import _explain


def in_a_worker(error: Exception) -> Exception:
    """An error as the driver gets it from a task."""
    made: Exception = ray.exceptions.RayTaskError("decode", "Traceback ...", error).as_instanceof_cause()
    return made


def test_a_stall_is_resumable() -> None:
    told = _explain(ExecutionTimeoutError("no progress for 600 s"))
    assert isinstance(told, IncompleteError)
    assert "no progress for 600 s" in str(told)
    assert told.exit_code == 3


def test_a_store_that_fails_under_way_is_resumable() -> None:
    told = _explain(in_a_worker(StoreError("output: cannot write /out: No space left on device")))
    assert isinstance(told, IncompleteError)
    assert "No space left on device" in str(told)


def test_what_must_be_mended_first_keeps_its_kind() -> None:
    told = _explain(in_a_worker(ModelError("model.name: is not on this node")))
    assert isinstance(told, ModelError)
    assert str(told) == "model.name: is not on this node"


@pytest.mark.parametrize("explain", [explain_stop, lambda error: _explain(in_a_worker(error))], ids=["local", "ray"])
def test_anything_else_is_named_by_its_first_line(explain: Callable[[Exception], ZsicError]) -> None:
    told = explain(ValueError("first\nsecond"))
    assert isinstance(told, IncompleteError)
    assert "ValueError: first\n" in str(told)
    assert "second" not in str(told)


def test_errors_cross_processes_whole() -> None:
    for error in (StoreError("a"), ModelError("b"), IncompleteError("c")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
