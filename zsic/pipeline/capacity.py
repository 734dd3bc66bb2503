"""Will the job make progress on this cluster, and with how much of it for each stage?  Arithmetic only.

Reservations and threads are separate things: a reservation is what Ray schedules by, and one decode task, all
encoders and one write task must fit into the cluster at the same time, or the job waits for ever without an error.
Torch's threads may use every core all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zsic.core.errors import CapacityError
from zsic.core.spec import DecodeSpec, ExecutionSpec

GIB = 2**30
DECODE_BYTES_PER_PIXEL = 10
"""Peak memory of decoding one picture, measured on the worst formats at the pixel limit: WebP and palette PNG."""

GPU_CALLS = 3
"""Blocks that a GPU's encoder works on at once: one computes, the others copy, wait, or make rows."""
_CUDA_BYTES = 5 * GIB // 2
"""Host memory of a process that uses CUDA, without weights; measured: 2.3 to 3.3 GiB with them."""

_ROWS_ANSWERED_PER_S = 200_000
"""By a core that has their embeddings, and few labels."""
_ROWS_OF_A_BLOCK = 50_000
_ROWS_WRITTEN_PER_S = 20_000
"""By one write task, by far: Parquet takes some 20 microseconds of CPU for a row, and a store as much again."""


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 8 * GIB
    object_store_bytes: int = 2 * GIB


@dataclass(frozen=True, slots=True)
class Workload:
    """What one image weighs in each stage."""

    height: int
    width: int
    weights_bytes: int
    """Of the image tower as it is loaded."""
    n_images: int
    """Pending images, estimated where shards have not been read."""
    row_bytes: int = 500
    """Of one row of the table in memory."""

    @property
    def pixels_bytes(self) -> int:
        """Of one image as it travels to the encoder: uint8 [H, W, 3]."""
        return self.height * self.width * 3

    @property
    def flops(self) -> float:
        """Of one image in the image tower, taken as a ViT with patches of 16 pixels."""
        n_tokens = (self.height // 16) * (self.width // 16) + 1
        return 2.0 * n_tokens * self.weights_bytes / 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Reservations, threads and sizes of the three stages."""

    decode_cpus: float
    decode_threads: int
    decode_tasks: int
    """Most decode tasks at once."""
    decode_memory_bytes: int
    encoders: int
    max_encoders: int
    """More than `encoders` on a cluster that grows."""
    encoder_cpus: float
    encoder_gpus: float
    encoder_threads: int
    encoder_calls: int
    """Blocks that one encoder works on at once."""
    encoder_memory_bytes: int
    write_cpus: float
    write_tasks: int
    """Most write tasks at once.  Ray sets CPUs aside for as many as there may be."""
    write_memory_bytes: int
    block_rows: int
    """Rows of one block, the unit that travels from decode to encoder."""
    batch_size: int | None
    """Images in one forward pass; None leaves it to the encoder, which tries its GPU."""
    rows_per_part: int
    images_per_slice: int
    images_per_s: float
    """A rough expectation, within a factor of about three; sizes the parts of a first run."""

    @property
    def grows(self) -> bool:
        """Whether there may be more encoders, on nodes that come later."""
        return self.max_encoders > self.encoders


def lay_out(
    execution: ExecutionSpec,
    decode: DecodeSpec,
    nodes: Sequence[Node],
    workload: Workload,
    *,
    rows_per_part: int | None = None,
    images_per_s: float | None = None,
) -> Layout:
    """Divide the cluster among the stages.

    `images_per_s` is the rate of an earlier run, where there was one.  Raises `CapacityError`, with the numbers,
    if the job could not make progress.
    """
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes)
    wants_gpu, on_gpu = execution.num_gpus > 0, execution.on_device == "cuda"
    if gpus < execution.num_gpus:
        raise CapacityError(
            f"execution.num_gpus is {execution.num_gpus:g} and the cluster has {gpus:g} GPUs; add a GPU node, or "
            "set it to 0 to encode on CPUs"
        )

    decode_cpus, encoder_cpus, write_cpus = _shares(max(node.cpus for node in nodes), wants_gpu)
    decode_cpus = execution.decode_cpus or decode_cpus
    if decode_cpus == encoder_cpus:
        # Equal requests would let Ray fuse the decode task into the encoder actor.
        encoder_cpus *= 2
    held = max(1, int(gpus / execution.num_gpus)) if wants_gpu else _cpu_encoders(nodes, workload)
    encoders = execution.encoders or min(held, execution.max_encoders or held)
    _check_cpus(cpus, decode_cpus, encoders, encoder_cpus, write_cpus)
    if encoders * execution.num_gpus > gpus:
        raise CapacityError(
            f"execution.encoders is {encoders} with {execution.num_gpus:g} GPUs each, and the cluster has {gpus:g}; "
            f"use at most {int(gpus / execution.num_gpus)}"
        )
    rate = images_per_s or _expected_rate(workload, cpus, encoders if on_gpu else 0)

    # An actor runs on one node: its threads are its share of that node, not of the cluster.
    cpus_of_a_node = max(node.cpus for node in nodes)
    encoders_of_a_node = -(-encoders // len(nodes))
    encoder_threads = execution.encoder_threads or max(1, int(cpus_of_a_node / encoders_of_a_node))
    write_tasks = 1 + int(rate / _ROWS_WRITTEN_PER_S)
    spare_cpus = cpus - encoders * encoder_cpus - write_tasks * write_cpus
    decode_tasks = execution.decode_tasks or max(1, int(spare_cpus / decode_cpus))

    batch_size = execution.batch_size or _batch_size(workload, on_gpu)
    object_store = sum(node.object_store_bytes for node in nodes)
    block_rows = execution.block_rows or _block_rows(workload, object_store, batch_size, decode_tasks, encoders, rate)
    block_bytes = block_rows * workload.pixels_bytes
    decode_memory = 3 * block_bytes + decode.max_pixels * DECODE_BYTES_PER_PIXEL
    encoder_calls = GPU_CALLS if on_gpu else 1
    if on_gpu:  # where weights are of two bytes, and loaded once
        encoder_memory = workload.weights_bytes + 2 * encoder_calls * block_bytes + _CUDA_BYTES
    else:
        encoder_memory = 2 * workload.weights_bytes + 4 * block_bytes + GIB // 2
    rows = rows_per_part or int(min(max(60 * rate, 1_000), 200_000))
    write_memory = 4 * rows * workload.row_bytes
    _check_places(
        nodes,
        [("encoder", Node(encoder_cpus, execution.num_gpus, encoder_memory)) for _ in range(encoders)]
        + [
            ("decode task", Node(decode_cpus, 0.0, decode_memory)),
            ("write task", Node(write_cpus, 0.0, write_memory)),
        ],
    )
    in_flight = ((encoder_calls + 1) * encoders + 2) * block_bytes
    if in_flight > object_store // 2:
        raise CapacityError(
            f"the object store holds {object_store / GIB:.2f} GiB and {in_flight / GIB:.2f} GiB of pixels would be "
            f"under way; lower execution.block_rows from {block_rows}"
        )

    return Layout(
        decode_cpus=decode_cpus,
        decode_threads=max(1, round(decode_cpus)),
        decode_tasks=decode_tasks,
        decode_memory_bytes=decode_memory,
        encoders=encoders,
        max_encoders=max(encoders, execution.max_encoders or 0),
        encoder_cpus=encoder_cpus,
        encoder_gpus=execution.num_gpus,
        encoder_threads=encoder_threads,
        encoder_calls=encoder_calls,
        encoder_memory_bytes=encoder_memory,
        write_cpus=write_cpus,
        write_tasks=write_tasks,
        write_memory_bytes=write_memory,
        block_rows=block_rows,
        batch_size=None if on_gpu and execution.batch_size is None else min(batch_size, block_rows),
        rows_per_part=rows,
        images_per_slice=_images_per_slice(workload, block_rows, decode_tasks),
        images_per_s=rate,
    )


def lay_out_relabelling(
    execution: ExecutionSpec,
    nodes: Sequence[Node],
    *,
    rows_of_a_part: int,
    row_bytes: int,
    n_rows: int,
    rows_per_part: int | None = None,
    images_per_s: float | None = None,
) -> Layout:
    """Divide the cluster between answering rows that are there and writing them; there are no encoders.

    `rows_of_a_part` are those of the largest part, which a task holds, and `row_bytes` are with the embedding.  Raises
    `CapacityError`, with the numbers, if the job could not make progress.
    """
    cpus = sum(node.cpus for node in nodes)
    cpus_of_a_node = max(node.cpus for node in nodes)
    task_cpus = execution.decode_cpus or (1.0 if cpus_of_a_node >= 4 else 0.75 if cpus_of_a_node >= 2 else 0.5)
    write_cpus = 0.5 if cpus_of_a_node >= 2 else 0.25
    rate = images_per_s or _ROWS_ANSWERED_PER_S * cpus
    write_tasks = max(1, int(cpus / 4))
    _check_cpus(cpus, task_cpus, 0, 0.0, write_cpus)
    tasks = execution.decode_tasks or max(1, int((cpus - write_tasks * write_cpus) / task_cpus))
    rows = rows_per_part or int(min(max(60 * rate, 1_000), 200_000))
    memory = 3 * rows_of_a_part * row_bytes
    write_memory = 4 * rows * row_bytes
    _check_places(nodes, [("task", Node(task_cpus, 0.0, memory)), ("write task", Node(write_cpus, 0.0, write_memory))])
    # Between two tasks of one worker Ray takes tenths of a second, so a task should last some.
    rows_per_slice = max(min(n_rows // (4 * tasks), 1_000_000), 1)
    return Layout(
        decode_cpus=task_cpus,
        decode_threads=max(1, round(task_cpus)),
        decode_tasks=tasks,
        decode_memory_bytes=memory,
        encoders=0,
        max_encoders=0,
        encoder_cpus=0.0,
        encoder_gpus=0.0,
        encoder_threads=0,
        encoder_calls=0,
        encoder_memory_bytes=0,
        write_cpus=write_cpus,
        write_tasks=write_tasks,
        write_memory_bytes=write_memory,
        block_rows=execution.block_rows or min(_ROWS_OF_A_BLOCK, rows_of_a_part),
        batch_size=None,
        rows_per_part=rows,
        images_per_slice=rows_per_slice,
        images_per_s=rate,
    )


def least_resources(execution: ExecutionSpec) -> list[dict[str, float]]:
    """What must fit on a cluster's nodes at the same time, as an autoscaler is asked for it: a bundle for each piece.

    Of the decode tasks as many as the spec asks for; by itself a job begins with one.
    """
    encoder = {"GPU": execution.num_gpus} if execution.num_gpus else {"CPU": 2.0}
    decode = {"CPU": execution.decode_cpus or 1.0}
    return [encoder] * (execution.encoders or 1) + [decode] * (execution.decode_tasks or 1) + [{"CPU": 1.0}]


def _shares(cpus_of_a_node: float, wants_gpu: bool) -> tuple[float, float, float]:
    """CPUs reserved by one decode task, one encoder and one write task.

    Measured: on 2 CPUs 1 + 1.5 waits for ever, 0.5 + 1 + 0.5 runs; on 1 CPU 0.25 + 0.5 + 0.25 runs.  An encoder that
    reserves a GPU reserves no CPU: one that must be started again would wait for decode tasks to leave its node, and
    they for somebody to take their images.
    """
    if cpus_of_a_node < 2:
        return 0.25, (0.0 if wants_gpu else 0.5), 0.25
    if cpus_of_a_node < 4:
        return 0.5, (0.0 if wants_gpu else 1.0), 0.5
    return 1.0, (0.0 if wants_gpu else 2.0), 0.5


def _cpu_encoders(nodes: Sequence[Node], workload: Workload) -> int:
    """One for every eight CPUs, where memory for their weights and blocks allows: threads of one scale no further."""
    by_cpus = int(sum(node.cpus for node in nodes) // 8)
    by_memory = sum(int(node.memory_bytes / 2 / (2 * workload.weights_bytes + GIB)) for node in nodes)
    return max(1, min(by_cpus, by_memory))


def _check_places(nodes: Sequence[Node], wanted: list[tuple[str, Node]]) -> None:
    """See to it that everything that must run at once finds a node: sums over the cluster do not tell that.

    First fit, in the order given.  Raises `CapacityError` that names what finds no place.
    """
    free = [[node.cpus, node.gpus, float(node.memory_bytes)] for node in nodes]
    for name, need in wanted:
        needs = (need.cpus, need.gpus, float(need.memory_bytes))
        for room in free:
            if all(has >= wants - 1e-9 for has, wants in zip(room, needs, strict=True)):
                room[:] = [has - wants for has, wants in zip(room, needs, strict=True)]
                break
        else:
            largest = max(node.memory_bytes for node in nodes) / GIB
            raise CapacityError(
                f"no node has room for another {name}: it needs {need.cpus:g} CPUs, {need.gpus:g} GPUs and "
                f"{need.memory_bytes / GIB:.1f} GiB of memory beside what runs already; there are {len(nodes)} nodes "
                f"with up to {max(node.cpus for node in nodes):g} CPUs, {max(node.gpus for node in nodes):g} GPUs and "
                f"{largest:.1f} GiB; lower execution.encoders, execution.block_rows or decode.max_pixels"
            )


def _check_cpus(cpus: float, decode_cpus: float, encoders: int, encoder_cpus: float, write_cpus: float) -> None:
    needed = decode_cpus + encoders * encoder_cpus + write_cpus
    if needed > cpus:
        raise CapacityError(
            f"the cluster has {cpus:g} CPUs, and one decode task ({decode_cpus:g}), {encoders} encoders "
            f"({encoder_cpus:g} each) and one write task ({write_cpus:g}) need {needed:g} at the same time; the job "
            "would wait for ever: lower execution.encoders or execution.decode_cpus, or add CPUs"
        )


def _batch_size(workload: Workload, on_gpu: bool) -> int:
    """Images a forward pass: enough to be efficient, few enough to be held in the caches of a CPU."""
    if on_gpu:
        return 256
    return int(min(max(8 * 224 * 224 / (workload.height * workload.width), 8), 32))


def _block_rows(
    workload: Workload, object_store: int, batch_size: int, decode_tasks: int, encoders: int, images_per_s: float
) -> int:
    """Blocks of up to 96 MB; smaller where the object store is, or there are few images, or they are slow.

    A block is the least that counts as progress, so it must not take longer than half a minute.
    """
    by_store = object_store / (8 * (decode_tasks + encoders + 1)) / workload.pixels_bytes
    by_size = 96e6 / workload.pixels_bytes
    by_images = max(workload.n_images / (4 * (decode_tasks + encoders)), 2 * batch_size)
    by_time = 30 * images_per_s / encoders
    rows = max(int(min(by_store, by_size, by_images, by_time, 1_024)), 1)
    return max(rows // batch_size * batch_size, min(rows, batch_size))


def _images_per_slice(workload: Workload, block_rows: int, decode_tasks: int) -> int:
    """Whole blocks: at least four slices a decode task, at most 4,000 images (or one block).

    Between two tasks of one worker Ray takes tenths of a second, so a task should last ten.
    """
    wanted = min(workload.n_images // (4 * decode_tasks), 4_000)
    return max(wanted // block_rows, 1) * block_rows


def _expected_rate(workload: Workload, cpus: float, n_gpus: int) -> float:
    """Images/s of the slower of decode (200 a core) and encoder (40 GFLOP/s a core, 100 TFLOP/s a GPU)."""
    encode = n_gpus * 1e14 / workload.flops if n_gpus else cpus * 4e10 / workload.flops
    return min(200.0 * cpus, encode)
