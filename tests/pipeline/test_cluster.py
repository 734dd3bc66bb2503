"""Requests of a run to its cluster: resources for its stages, and nodes from an autoscaler."""

from collections.abc import Callable
from typing import Any

import pytest
from support.autoscaler import requested

from zsic.core.errors import CapacityError, IncompleteError
from zsic.core.preprocess import Geometry
from zsic.core.spec import DecodeSpec, ExecutionSpec, make_spec
from zsic.pipeline.capacity import GIB, Layout, Node, Workload, lay_out

pytestmark = pytest.mark.ray

WORKLOAD = Workload(224, 224, 350_000_000, n_images=10_000)
CPUS = [Node(2, memory_bytes=8 * GIB)]
CPUS_AND_GPU = [*CPUS, Node(1, gpus=1, memory_bytes=8 * GIB)]


class Nodes:
    """A cluster that grows each time it is looked at, and what its autoscaler is asked for meanwhile."""

    def __init__(self, address: str, execution: ExecutionSpec, *steps: list[Node]) -> None:
        self.requests: list[list[dict[str, float]]] = []
        self._address = address
        self._execution = execution
        self._steps = list(steps)

    def lay_out(self) -> Layout:
        self.requests.append(requested(self._address))
        nodes = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        return lay_out(self._execution, DecodeSpec(), nodes, WORKLOAD)


@pytest.fixture
def execution_for(on_ray: dict[str, object]) -> Callable[..., ExecutionSpec]:
    return lambda **fields: ExecutionSpec(**on_ray, num_gpus=1, encoders=1, **fields)


def test_a_run_waits_for_the_nodes_that_it_needs(
    execution_for: Callable[..., ExecutionSpec], cluster_address: str
) -> None:
    from zsic.pipeline.cluster import connect, wait_for_nodes

    execution, told = execution_for(wait_for_nodes_s=60), list[str]()
    nodes = Nodes(cluster_address, execution, CPUS, CPUS, CPUS_AND_GPU)
    with connect(execution):
        layout = wait_for_nodes(execution, nodes.lay_out, told.append)
        assert requested(cluster_address) == [], "nothing is asked for any more"
    assert (layout.encoders, layout.encoder_gpus) == (1, 1)
    assert [each.startswith("waiting for nodes, for 60 s at most: ") for each in told] == [True]
    before, *meanwhile = nodes.requests
    assert before == []
    assert [sorted(each, key=str) for each in meanwhile] == [[{"CPU": 1.0}, {"CPU": 1.0}, {"GPU": 1.0}]] * 2


def test_nodes_that_do_not_come_end_the_run_resumable(
    execution_for: Callable[..., ExecutionSpec], cluster_address: str
) -> None:
    from zsic.pipeline.cluster import connect, wait_for_nodes

    patient, impatient = execution_for(wait_for_nodes_s=0.5), execution_for()
    with connect(patient):
        with pytest.raises(IncompleteError, match="no node came in that time"):
            wait_for_nodes(patient, Nodes(cluster_address, patient, CPUS).lay_out, print)
        assert requested(cluster_address) == []
        with pytest.raises(CapacityError, match="0 GPUs"):
            wait_for_nodes(impatient, Nodes(cluster_address, impatient, CPUS).lay_out, print)


def test_a_head_without_cpus_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from zsic.pipeline.cluster import read_nodes

    def alive(resources: dict[str, float]) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": resources}, {"Alive": False, "Resources": {"CPU": 8.0}}]

    monkeypatch.setattr("ray.nodes", lambda: alive({"memory": 1e9}))
    with pytest.raises(CapacityError, match=r"has no CPUs; .*an autoscaler bring them \(execution\.wait_for_nodes_s\)"):
        read_nodes()
    monkeypatch.setattr("ray.nodes", lambda: alive({"CPU": 2.0, "GPU": 1.0, "memory": 1e9}))
    assert read_nodes() == [Node(cpus=2, gpus=1, memory_bytes=10**9, object_store_bytes=0)]


@pytest.mark.parametrize("gpus", [0, 1])
def test_stages_reserve_what_the_layout_says(on_ray: dict[str, object], gpus: int) -> None:
    """So Ray keeps images off nodes with too little memory, and encoders on those with GPUs."""
    from zsic.pipeline.cluster import connect
    from zsic.pipeline.graph import build, set_context
    from zsic.pipeline.stages import Decode
    from zsic.storage.slices import Slice
    from zsic.storage.store import open_store

    execution = ExecutionSpec(**on_ray, num_gpus=gpus)
    layout = lay_out(execution, DecodeSpec(), CPUS_AND_GPU, WORKLOAD)
    spec = make_spec({"source": "x", "labels": ["a"], "output": "/nowhere"})
    geometry = Geometry(resize=224, resample="bicubic", crop=(224, 224))
    decode = Decode(open_store("/nowhere", spec.store), spec, geometry, layout.block_rows, 1, None, None)  # type: ignore[arg-type]
    with connect(execution):
        set_context(layout, 224 * 224 * 3, 60)
        encode_stage = build([Slice("a", 0, 1)], decode, {}, layout)._logical_plan.dag
    (decode_stage,) = encode_stage.input_dependencies

    def reserved(stage: Any) -> dict[str, float]:
        return {name: stage.ray_remote_args.get(name) or 0 for name in ("num_cpus", "num_gpus", "memory")}

    assert reserved(decode_stage) == {
        "num_cpus": layout.decode_cpus,
        "num_gpus": 0,
        "memory": layout.decode_memory_bytes,
    }
    assert reserved(encode_stage) == {
        "num_cpus": layout.encoder_cpus,
        "num_gpus": layout.encoder_gpus,
        "memory": layout.encoder_memory_bytes,
    }
    assert layout.encoder_gpus == gpus
    assert layout.decode_memory_bytes > 100 * 2**20
