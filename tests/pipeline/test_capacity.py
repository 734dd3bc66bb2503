import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import CapacityError, SpecError
from zsic.core.spec import DecodeSpec, ExecutionSpec, make_spec
from zsic.pipeline.capacity import GIB, Layout, Node, Workload, lay_out

VIT_B32 = Workload(224, 224, weights_bytes=350_000_000, n_images=10_000)
DEMO = Workload(64, 64, weights_bytes=8_000_000, n_images=3_000)


def layout(nodes: list[Node], workload: Workload = VIT_B32, **execution: object) -> Layout:
    return lay_out(ExecutionSpec(**execution), DecodeSpec(), nodes, workload)  # type: ignore[arg-type]


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
def test_every_size_of_machine_makes_progress(cpus: int) -> None:
    made = layout([Node(cpus)])
    needed = made.decode_cpus + made.encoders * made.encoder_cpus + made.write_cpus
    assert needed <= cpus
    # Equal requests would be fused into one actor by Ray.
    assert made.decode_cpus != made.encoder_cpus


@given(
    cpus=st.integers(1, 96),
    n_nodes=st.integers(1, 5),
    gpus=st.integers(0, 8),
    n_images=st.integers(1, 10**8),
    side=st.sampled_from([64, 224, 336, 384, 512]),
)
def test_layout_is_sound_or_refused_with_numbers(cpus: int, n_nodes: int, gpus: int, n_images: int, side: int) -> None:
    nodes = [Node(cpus, gpus, memory_bytes=16 * GIB)] * n_nodes
    workload = Workload(side, side, 350_000_000, n_images)
    try:
        made = layout(nodes, workload, num_gpus=1 if gpus else 0)
    except CapacityError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert any(character.isdigit() for character in refusal)
        return
    total = cpus * n_nodes
    assert made.decode_cpus + made.encoders * made.encoder_cpus + made.write_cpus <= total
    assert made.encoders * made.encoder_gpus <= gpus * n_nodes
    assert (made.batch_size is None) == (gpus > 0)
    assert 1 <= (made.batch_size or 1) <= made.block_rows <= 1_024
    assert made.images_per_slice % made.block_rows == 0
    assert 1_000 <= made.rows_per_part <= 200_000
    assert made.block_rows * workload.pixels_bytes <= 100e6
    assert 1 <= made.encoder_threads <= cpus
    assert made.decode_tasks >= 1
    if made.decode_tasks > 1:
        # What Ray sets aside for writing, it takes from decoding.
        reserved = made.decode_tasks * made.decode_cpus + made.encoders * made.encoder_cpus
        assert reserved + made.write_tasks * made.write_cpus <= total


def test_too_many_encoders_are_refused_with_numbers() -> None:
    with pytest.raises(CapacityError, match=r"2 CPUs.*2 encoders \(1 each\).*need 3 at"):
        layout([Node(2)], encoders=2)


def test_a_pool_stays_within_its_bounds() -> None:
    nodes = [Node(8, gpus=4, memory_bytes=64 * GIB)]
    assert (layout(nodes, num_gpus=1).encoders, layout(nodes, num_gpus=1).grows) == (4, False)
    # What there is already may be more than the most that is wanted.
    made = layout(nodes, num_gpus=1, max_encoders=2)
    assert (made.encoders, made.max_encoders, made.grows) == (2, 2, False)
    made = layout(nodes, num_gpus=1, encoders=1, max_encoders=8)
    assert (made.encoders, made.max_encoders, made.grows) == (1, 8, True)
    assert layout([Node(64, memory_bytes=64 * GIB)], max_encoders=3).encoders == 3
    with pytest.raises(SpecError, match=r"execution\.max_encoders: execution\.encoders is 3 already; got 2"):
        make_spec({"source": "a", "labels": "b,c", "output": "d", "execution": {"encoders": 3, "max_encoders": 2}})


def test_an_encoder_that_reserves_a_gpu_reserves_no_cpu() -> None:
    for cpus in (1, 2, 16):
        made = layout([Node(cpus, gpus=1)], num_gpus=1)
        assert made.encoder_cpus == 0 < made.decode_cpus


def test_missing_gpu_is_refused() -> None:
    with pytest.raises(CapacityError, match=r"execution.num_gpus is 1 and the cluster has 0 GPUs"):
        layout([Node(8)], num_gpus=1)
    with pytest.raises(CapacityError, match=r"use at most 2"):
        layout([Node(8, gpus=2)], num_gpus=1, encoders=3)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(CapacityError, match=r"no node has room.*1.0 GiB; lower"):
        layout([Node(4, memory_bytes=GIB)])


def test_block_that_fills_the_object_store_is_refused() -> None:
    with pytest.raises(CapacityError, match=r"lower execution\.block_rows from 1000"):
        layout([Node(4, object_store_bytes=GIB // 4)], block_rows=1000)


def test_what_the_user_sets_is_kept() -> None:
    made = layout(
        [Node(16)],
        encoders=2,
        encoder_threads=3,
        batch_size=24,
        decode_cpus=0.5,
        decode_tasks=7,
        block_rows=96,
    )
    assert (made.encoders, made.encoder_threads, made.batch_size) == (2, 3, 24)
    assert (made.decode_cpus, made.decode_tasks, made.block_rows) == (0.5, 7, 96)


def test_few_images_are_shared_out() -> None:
    made = layout([Node(2)], DEMO)
    assert DEMO.n_images / made.block_rows >= 4


def test_gpus_get_an_encoder_each_and_threads_of_their_node() -> None:
    made = layout([Node(16, 4, 64 * GIB), Node(16, 4, 64 * GIB), Node(32)], num_gpus=1)
    assert made.encoders == 8
    assert layout([Node(16, 2, 64 * GIB)], num_gpus=0.5).encoders == 4


def test_a_gpu_machine_decodes_on_all_cores_but_one() -> None:
    made = layout([Node(16, 1, 128 * GIB, 38 * GIB)], Workload(224, 224, 350_000_000, 10**6), num_gpus=1)
    assert (made.encoders, made.decode_tasks, made.write_tasks) == (1, 15, 1)
    assert made.images_per_slice >= 4 * made.block_rows


def test_known_rate_sizes_the_parts() -> None:
    made = lay_out(ExecutionSpec(), DecodeSpec(), [Node(2)], VIT_B32, images_per_s=100.0)
    assert made.rows_per_part == 6_000
    assert lay_out(ExecutionSpec(), DecodeSpec(), [Node(2)], VIT_B32, rows_per_part=7).rows_per_part == 7


def test_slow_models_get_small_blocks() -> None:
    slow = Workload(384, 384, weights_bytes=1_700_000_000, n_images=100_000)
    made = layout([Node(2, memory_bytes=16 * GIB)], slow)
    assert made.block_rows <= 30 * made.images_per_s + 1


@pytest.mark.parametrize(
    ("nodes", "execution"),
    [
        ([Node(64), Node(1, gpus=8)], {"num_gpus": 1}),
        ([Node(4)] * 4, {"decode_cpus": 6}),
        ([Node(16, gpus=1)] * 4, {"num_gpus": 0.6, "encoders": 6}),
        ([Node(4, memory_bytes=2 * GIB)] * 8, {"encoders": 1, "decode_tasks": 1}),
    ],
    ids=["few CPUs beside many GPUs", "a task larger than a node", "parts of GPUs", "memory in small pieces"],
)
def test_what_fits_the_cluster_but_no_node_is_refused(nodes: list[Node], execution: dict[str, object]) -> None:
    vit_h = Workload(224, 224, weights_bytes=2_500_000_000, n_images=10_000)
    with pytest.raises(CapacityError, match=r"room|GPUs"):
        layout(nodes, vit_h, **execution)


@pytest.mark.parametrize("n", [4, 8])
def test_many_small_nodes_are_used(n: int) -> None:
    made = layout([Node(1)] * n)
    assert made.encoder_cpus <= 1
