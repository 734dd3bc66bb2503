"""Environment variables that OpenMP and Ray read when they are loaded."""

import os

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For processes that hold an encoder.  Torch's threads would wait for one another by spinning, on cores that decoding
needs: on 2 cores that took a quarter of the encoder's CPU time."""

RAY = {
    # Ray's own bars, tips and usage messages would drown the job's.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Under `uv run`, workers would rebuild the environment instead of using this one.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    **PASSIVE,
}


def set_defaults(variables: dict[str, str]) -> None:
    """Set variables that are not set, for this process and those it starts."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
