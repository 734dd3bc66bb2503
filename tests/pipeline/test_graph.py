"""What Ray makes of the graph: its operators, and their order."""

import contextlib
import io

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.data import DataContext
from ray.data._internal.output_buffer import BlockOutputBuffer, OutputBlockSizeOption

from zsic.core.spec import DecodeSpec, ExecutionSpec, make_spec
from zsic.pipeline.capacity import Node, Workload, lay_out
from zsic.pipeline.graph import build, set_context
from zsic.pipeline.stages import Decode
from zsic.storage.slices import Slice
from zsic.storage.store import open_store

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(("cpus", "gpus"), [(1, 0), (2, 0), (8, 0), (8, 2)])
def test_decode_and_encoder_stay_apart(cluster_address: str, cpus: int, gpus: int) -> None:
    from zsic.core.preprocess import Geometry

    execution = ExecutionSpec(num_gpus=1 if gpus else 0)
    layout = lay_out(execution, DecodeSpec(), [Node(cpus, gpus)], Workload(224, 224, 350_000_000, 10_000))
    spec = make_spec({"source": "x", "labels": ["a"], "output": "/nowhere"})
    geometry = Geometry(resize=224, resample="bicubic", crop=(224, 224))
    decode = Decode(open_store("/nowhere", spec.store), spec, geometry, layout.block_rows, 1, None, None)  # type: ignore[arg-type]
    ray.init(address=cluster_address, log_to_driver=False)
    try:
        set_context(layout, 224 * 224 * 3, 60)
        dataset = build([Slice("a", 0, 1), Slice("a", 1, 2)], decode, {}, layout)
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            dataset.explain()
    finally:
        ray.shutdown()
    physical = text.getvalue().split("Physical Plan (Optimized) --------")[1]
    assert " ".join(physical.split()) == (
        "ActorPoolMapOperator[MapBatches(Encode)] +- TaskPoolMapOperator[MapBatches(Decode)] +- InputDataBuffer[Input]"
    )


@pytest.mark.parametrize("side", [64, 224, 384])
def test_one_yield_is_one_block(side: int) -> None:
    """What Ray's own buffer makes of the blocks of a decode task: it may neither pool nor cut them."""
    layout = lay_out(ExecutionSpec(), DecodeSpec(), [Node(2)], Workload(side, side, 8_000_000, 3_000))
    set_context(layout, side * side * 3, 60)
    context = DataContext.get_current()
    buffer = BlockOutputBuffer(OutputBlockSizeOption(target_max_block_size=context.target_max_block_size))
    pixels = np.zeros((layout.block_rows, side * side * 3), np.uint8)
    columns = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(side * side * 3), layout.block_rows, [None, pa.py_buffer(pixels)]
    )
    for number in range(3):
        uris = [f"s3://lake/photos-{row:09d}.tar" * 5 for row in range(layout.block_rows)]
        buffer.add_batch(pa.table({"id": [number] * layout.block_rows, "uri": uris, "pixels": columns}))
        assert buffer.has_next()
        assert buffer.next()["id"].to_pylist() == [number] * layout.block_rows
        assert not buffer.has_next()
