"""The two stages of a job: a slice to blocks of pixels, a block of pixels to rows of the table.

Both keep every row.  A failed image keeps its place with zero pixels of full size, so that the borders of blocks
depend on positions only: a task that is run again must give the same blocks, or Ray would lose rows without a word.

Shape legend: N rows of a block, B images of a batch, H W pixels, D embedding width, K predictions kept.
"""

import json
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zsic.core.cell import Cells
from zsic.core.deadman import Deadman
from zsic.core.decode import DecodeError
from zsic.core.embedding import Embeddings
from zsic.core.outcome import Failure, Outcome
from zsic.core.predictions import Answers
from zsic.core.preprocess import Geometry, Pixels, Prepared, prepare
from zsic.core.schema import KEPT, PIXELS, SOURCE_TOTAL, decoded_schema, output_schema, split_kept
from zsic.core.spec import JobSpec
from zsic.pipeline.sight import Sight
from zsic.storage.objects import Objects
from zsic.storage.rows import RawRow, read_rows
from zsic.storage.slices import Slice
from zsic.storage.store import Store

if TYPE_CHECKING:
    import ray

    from zsic.models.checkpoint import Checkpoint
    from zsic.models.heads import Heads
    from zsic.pipeline.reporter import Reporter

_WAITING_BYTES = 128 * 2**20  # of undecoded images; frames of videos come as they are, 25 MB each at 4K

Prepare = Callable[[bytes, Pixels], Prepared]
"""Decode one image into pixels that are there.  Raises `DecodeError`."""


@dataclass(frozen=True)
class Decode:
    """Turn slices into blocks of `block_rows` rows: fetch, decode and resize, fused in one task.

    The first attempt of a task decodes in threads, and an image that ends its decoder ends the task's process.  Ray
    begins the task again, and then each image is decoded in a cell: the rows stay the same, and the culprit has one.
    """

    store: Store
    spec: JobSpec
    geometry: Geometry
    block_rows: int
    n_threads: int
    reporter: "Reporter"
    sight: Sight

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the blocks of each slice of a batch that Ray Data gives, in order."""
        import torch

        self.sight.check()
        torch.set_num_threads(1)  # images are decoded side by side; each by one thread
        # What Pillow has to say of a damaged file is in its row.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        with self._decoder() as prepare:
            yield from self.decode((Slice(**json.loads(item)) for item in batch["slice"]), prepare)

    def decode(self, slices: Iterable[Slice], prepare: Prepare) -> Iterator[pa.Table]:
        """Yield the blocks of each slice, in order; `prepare` is called from `n_threads` threads."""
        objects = Objects(self.spec.store)
        height, width = self.geometry.size
        with ThreadPoolExecutor(self.n_threads, thread_name_prefix="decode") as pool:
            for piece in slices:
                rows = read_rows(self.store, objects, self.spec, piece)
                while True:
                    started = time.perf_counter()
                    block = _Block(self.block_rows, height, width)
                    under_way: deque[tuple[Future[None], int]] = deque()
                    n_waiting = 0
                    fetch_s = 0.0
                    for at in range(self.block_rows):
                        asked = time.perf_counter()
                        row = next(rows, None)
                        fetch_s += time.perf_counter() - asked
                        if row is None:
                            break
                        block.enter(row)
                        if row.data is not None:
                            # A few images wait per thread, never a whole block of undecoded bytes; fewer large ones.
                            while len(under_way) >= 4 * self.n_threads or (under_way and n_waiting > _WAITING_BYTES):
                                done, n_bytes = under_way.popleft()
                                done.result()
                                n_waiting -= n_bytes
                            under_way.append((pool.submit(block.decode, at, row.data, prepare), len(row.data)))
                            n_waiting += len(row.data)
                    for future, _ in under_way:
                        future.result()
                    if not block.n_rows:
                        break
                    self.reporter.add_decoded(
                        block.n_rows, block.n_bytes, fetch_s, time.perf_counter() - started - fetch_s
                    )
                    yield block.to_table()

    @contextmanager
    def _decoder(self) -> Iterator[Prepare]:
        """How this attempt of the task decodes: fast, or safe once an image may have ended an attempt before."""
        timeout_s = self.spec.execution.decode_timeout_s
        if _attempt() > 0:
            with Cells(self.n_threads, self.geometry, self.spec.decode, timeout_s) as cells:
                yield cells.prepare
        else:
            with Deadman(timeout_s) as deadman:

                def in_a_thread(data: bytes, out_HW3: Pixels) -> Prepared:
                    with deadman.watching():
                        return prepare(data, self.geometry, self.spec.decode, out_HW3)

                yield in_a_thread


def _attempt() -> int:
    """Return how often this Ray task was begun before; 0 outside of Ray."""
    import ray

    if not ray.is_initialized():
        return 0
    # Ray tells its own logs and its state API, and has no public way to ask from within.
    return int(ray.get_runtime_context().worker.core_worker.get_current_task_attempt_number())


class _Block:
    """One block while it is filled."""

    def __init__(self, n_rows: int, height: int, width: int) -> None:
        self._schema = decoded_schema(height, width)
        self._pixels_NHW3 = np.zeros((n_rows, height, width, 3), np.uint8)
        self._rows: list[RawRow] = []
        self._failures: dict[int, Failure] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self.n_bytes = 0

    @property
    def n_rows(self) -> int:
        return len(self._rows)

    def enter(self, row: RawRow) -> None:
        """Give the next place to a row; its pixels come later, or never."""
        if row.failure is not None:
            self._failures[len(self._rows)] = row.failure
        self.n_bytes += row.n_bytes
        # The bytes are held by the decode under way alone, and go with it.
        self._rows.append(row.without_data())

    def decode(self, at: int, data: bytes, prepare: Prepare) -> None:
        """Decode into the place `at`.  Runs in a thread."""
        try:
            prepared = prepare(data, self._pixels_NHW3[at])
        except DecodeError as error:
            self._pixels_NHW3[at] = 0
            self._failures[at] = error.failure
            if error.width is not None and error.height is not None:
                self._sizes[at] = (error.width, error.height)
        else:
            self._sizes[at] = (prepared.width, prepared.height)

    def to_table(self) -> pa.Table:
        """The block as a table; the pixels are not copied."""
        n = self.n_rows
        pixels = pa.FixedSizeBinaryArray.from_buffers(
            self._schema.field(PIXELS).type, n, [None, pa.py_buffer(self._pixels_NHW3[:n])]
        )
        failures = [self._failures.get(at) for at in range(n)]
        sizes = [self._sizes.get(at, (None, None)) for at in range(n)]
        columns = {
            "id": [row.id for row in self._rows],
            "uri": [row.uri for row in self._rows],
            "key": [row.key for row in self._rows],
            "outcome": [failure.outcome.value if failure else Outcome.OK.value for failure in failures],
            "detail": [failure.detail if failure else None for failure in failures],
            "width": [width for width, _ in sizes],
            "height": [height for _, height in sizes],
            SOURCE_TOTAL: [row.source_total for row in self._rows],
            KEPT: [row.kept for row in self._rows],
        }
        arrays = [
            pixels if field.name == PIXELS else pa.array(columns[field.name], field.type) for field in self._schema
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)


class Encode:
    """An actor that holds the image tower and the heads: a block of pixels to rows of the table.

    `batch_size` None is what suits the GPU best.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint",
        heads: "Heads | ray.ObjectRef[Heads]",
        spec: JobSpec,
        *,
        dtype: str,
        batch_size: int | None,
        n_threads: int,
        reporter: "Reporter",
    ) -> None:
        from zsic.models.batch_size import find_batch_size
        from zsic.models.encoder import ImageEncoder
        from zsic.models.streams import Streams

        device = spec.execution.on_device
        self._encoder = ImageEncoder(checkpoint.on_this_machine(), device=device, dtype=dtype, threads=n_threads)
        self._batch_size = batch_size or find_batch_size(self._encoder)
        self._streams = Streams(device)
        # Of many labels the matrix is large: one copy lies in the object store, for all encoders.
        self._heads = fetch_heads(heads).to_device(device)
        self._keep_columns = spec.source.keep_columns
        self._embeddings = spec.output.embeddings
        self._reporter = reporter
        self._schema = output_schema(
            self._keep_columns, self._encoder.dim if self._embeddings else None, self._heads.columns
        ).append(pa.field(SOURCE_TOTAL, pa.int32()))

    def __call__(self, block: pa.Table) -> pa.Table:
        """Classify the rows of a block whose outcome is ok; order and number of rows stay.  Threads may call."""
        with self._streams.own():
            return self._classify_block(block)

    def _classify_block(self, block: pa.Table) -> pa.Table:
        outcomes, details = block["outcome"].to_pylist(), block["detail"].to_pylist()
        ok_rows = np.flatnonzero(np.array(outcomes) == Outcome.OK)
        pixels_NHW3 = _pixels_of(block, self._encoder.geometry)
        answers = self._heads.begin(block.num_rows)
        embeddings = Embeddings(block.num_rows, self._encoder.dim) if self._embeddings else None
        begin = 0
        while begin < len(ok_rows):
            started = time.perf_counter()
            # Batches of about one size: a last one of few images would not be worth its time on a GPU.
            n_batches = ceil((len(ok_rows) - begin) / self._batch_size)
            rows_B = ok_rows[begin : begin + ceil((len(ok_rows) - begin) / n_batches)]
            bad_rows = self._classify_if_it_fits(pixels_NHW3, rows_B, answers, embeddings)
            if bad_rows is None:
                continue  # with fewer
            for row in bad_rows:
                outcomes[row] = Outcome.NOT_FINITE.value
                details[row] = "the image tower returned NaN or infinity"
            self._reporter.add_encoded(len(rows_B), time.perf_counter() - started)
            begin += len(rows_B)
        self._reporter.add_outcomes(outcomes)

        columns: dict[str, Any] = {name: block[name] for name in ("id", "uri", "key", "width", "height", SOURCE_TOTAL)}
        columns |= {"outcome": outcomes, "detail": details}
        for each in answers:
            columns |= each.to_arrays()
        if embeddings is not None:
            columns["embedding"] = embeddings.to_array()
        columns |= dict(zip(self._keep_columns, split_kept(block[KEPT], self._keep_columns), strict=True))
        table = pa.table([_as_column(columns[field.name], field.type) for field in self._schema], schema=self._schema)
        if table.num_rows != block.num_rows:
            raise AssertionError(f"{block.num_rows} rows went into the encoder, {table.num_rows} came out")
        return table

    def _classify_if_it_fits(
        self,
        pixels_NHW3: npt.NDArray[np.uint8],
        rows_B: npt.NDArray[np.int64],
        answers: list[Answers],
        embeddings: Embeddings | None,
    ) -> npt.NDArray[np.int64] | None:
        """Classify, or find that memory does not do for so many: then batches are smaller from now on."""
        import torch

        from zsic.models.batch import halve

        try:
            return self._classify(pixels_NHW3, rows_B, answers, embeddings)
        except (RuntimeError, MemoryError) as error:
            self._batch_size = halve(len(rows_B), error)
        # Only now: the error held what the batch had allocated.
        torch.cuda.empty_cache()
        return None

    def _classify(
        self,
        pixels_NHW3: npt.NDArray[np.uint8],
        rows_B: npt.NDArray[np.int64],
        answers: list[Answers],
        embeddings: Embeddings | None,
    ) -> npt.NDArray[np.int64]:
        """Enter the answers of some rows of a block; returns those whose embedding is not finite."""
        from zsic.models.batch import encode_apart

        first, last = int(rows_B[0]), int(rows_B[-1])
        is_whole = last - first == len(rows_B) - 1  # then they need not be gathered
        image_BD = encode_apart(
            self._encoder.encode, pixels_NHW3[first : last + 1] if is_whole else pixels_NHW3[rows_B]
        )
        finite_B = image_BD.isfinite().all(dim=1).cpu().numpy()
        bad: npt.NDArray[np.int64] = rows_B[~finite_B]
        for each, verdict in zip(answers, self._heads.judge(image_BD.nan_to_num()), strict=True):
            each.enter(rows_B, verdict.cpu())
            each.withdraw(bad)
        if embeddings is not None:
            embeddings.enter(rows_B[finite_B], image_BD.cpu().numpy()[finite_B])
        return bad


def fetch_heads(heads: "Heads | ray.ObjectRef[Heads]") -> "Heads":
    """Return the heads, from Ray's object store if they are there."""
    from zsic.models.heads import Heads

    if isinstance(heads, Heads):
        return heads
    import ray

    fetched: Heads = ray.get(heads)
    return fetched


def _as_column(values: Any, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    return values if isinstance(values, pa.ChunkedArray | pa.Array) else pa.array(values, kind)


def _pixels_of(block: pa.Table, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """The pixels of a block as uint8 [N, H, W, 3], without a copy where they are in one piece."""
    chunks = block[PIXELS].chunks
    pixels = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    height, width = geometry.size
    n_bytes = height * width * 3
    flat = np.frombuffer(pixels.buffers()[1], np.uint8, len(pixels) * n_bytes, pixels.offset * n_bytes)
    return flat.reshape(len(pixels), height, width, 3)
