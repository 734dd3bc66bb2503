"""The whole job as one expression."""

import json
import warnings
from dataclasses import asdict
from math import ceil
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from zsic.pipeline.capacity import Layout
from zsic.pipeline.relabel import Relabel
from zsic.pipeline.stages import Decode, Encode
from zsic.storage.slices import Slice

MAX_TASK_RETRIES = 4
"""Ray would retry a task that kills its worker for ever; so often must be enough, or the run stops, resumable."""


def set_context(layout: Layout, pixels_bytes: int, no_progress_timeout_s: float) -> None:
    """Set what Ray Data reads when a dataset is created: so this comes first."""
    context = DataContext.get_current()
    # A yield becomes a block when the buffer is over this size; a little under a whole block makes each yield one.
    context.target_max_block_size = int(0.9 * layout.block_rows * pixels_bytes)
    context.execution_no_progress_timeout_s = ceil(no_progress_timeout_s)
    context.raise_original_map_exception = True  # else Ray's own wrapper hides what went wrong
    context.max_errored_blocks = 0  # it would swallow failed writes too
    context.execution_options.preserve_order = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def build_relabelling(slices: list[Slice], relabel: Relabel, layout: Layout) -> Dataset:
    """Slices -> rows with other answers (CPU tasks).  The sink follows with `write_datasink`."""
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*", category=RayDeprecationWarning)
    return _from_slices(slices).map_batches(
        relabel,
        batch_size=None,
        num_cpus=layout.decode_cpus,
        memory=layout.decode_memory_bytes,
        compute=TaskPoolStrategy(layout.decode_tasks),
        max_retries=MAX_TASK_RETRIES,
    )


def _from_slices(slices: list[Slice]) -> Dataset:
    """A row and a block for each slice."""
    items = [{"slice": json.dumps(asdict(piece))} for piece in slices]
    return ray.data.from_items(items, override_num_blocks=len(items))


def build(slices: list[Slice], decode: Decode, encode_arguments: dict[str, Any], layout: Layout) -> Dataset:
    """Slices -> decode (CPU tasks) -> encode (actor pool).  The sink follows with `write_datasink`."""
    # Ray deprecates the arguments that bound retries and has nothing in their place; below 2.64 they work.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*", category=RayDeprecationWarning)
    return (
        _from_slices(slices)
        .map_batches(
            decode,
            batch_size=None,
            num_cpus=layout.decode_cpus,
            memory=layout.decode_memory_bytes,
            # On a cluster that grows, Ray's own budget bounds them: it follows the CPUs that there are.
            compute=TaskPoolStrategy(None if layout.grows else layout.decode_tasks),
            max_retries=MAX_TASK_RETRIES,
        )
        .map_batches(
            Encode,
            fn_constructor_kwargs=encode_arguments,
            batch_size=layout.block_rows,
            batch_format="pyarrow",
            num_cpus=layout.encoder_cpus,
            num_gpus=layout.encoder_gpus or None,
            memory=layout.encoder_memory_bytes,
            compute=ActorPoolStrategy(
                min_size=layout.encoders,
                max_size=layout.max_encoders,
                max_tasks_in_flight_per_actor=layout.encoder_calls + 1,
                max_concurrent_calls_per_actor=layout.encoder_calls,
                enable_true_multi_threading=True,
            ),
            max_restarts=MAX_TASK_RETRIES,
            max_task_retries=MAX_TASK_RETRIES,
        )
    )
