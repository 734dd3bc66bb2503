"""The GPU encoder and the job around it, against the limits of the hardware and against the peers.

    python benchmarks/gpu.py --shards 'photos/*.tar' --results FILE.md
    python benchmarks/gpu.py --device cpu --smoke

Weights are random: rates do not depend on them.  For each model, in processes of their own:

- `forward`: the image tower alone, on pixels that are on the device; and its share of the device's matrix rate.
- `actor`: what Ray runs, fed with decoded blocks from memory, rows of the table out; by how many blocks at once.
- `pipeline`: the job, from JPEG shards to Parquet, once its workers stand; beside it what the cores can decode.
- `hf`: transformers' zero-shot pipeline; `loader`: a DataLoader with PIL's and float32's ways, as embedding tools have
  it, the tower in half precision.
- `compile`, if asked for: the tower through torch.compile.

Before a rate is printed, the tower's rows are compared with float32 rows, and the device's top-K with the CPU's.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from pictures import draw_shard, link_shards, read_shard
from PIL import Image
from towers import TOWERS, make_checkpoint

from zsic.core.labels import load_labels
from zsic.core.preprocess import Geometry, prepare
from zsic.core.schema import KEPT, PIXELS, SOURCE_TOTAL, decoded_schema
from zsic.core.spec import DecodeSpec, LabelsSpec, ModelSpec, make_spec
from zsic.models.batch_size import SIZES
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.models.head import compile_head
from zsic.models.heads import Heads
from zsic.pipeline.capacity import GPU_CALLS
from zsic.pipeline.stages import Encode
from zsic.pipeline.watch import Progress, Watch

LABELS = [f"photo number {n}" for n in range(1000)]


# --- the limits


def matrix_rate(device: str, seconds: float) -> float:
    """FLOP/s of one large product, in the dtype that the tower is computed in."""
    n = 8192 if device == "cuda" else 1024
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2.0 * n**3 * rate(lambda: torch.mm(a, b), 1, device, seconds)


def rate(call: Callable[[], object], n: int, device: str, seconds: float) -> float:
    """`n` a call, in calls back to back; the best of three, after a warm one."""
    best = 0.0
    for repeat in range(4):
        synchronize(device)
        started, calls = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds / 3:
            for _ in range(3):
                call()
            calls += 3
            synchronize(device)
        best = max(best, n * calls / elapsed) if repeat else 0.0
    return best


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def decode_alone(shard: str, geometry: Geometry, seconds: float) -> float:
    """Images/s of one core that does nothing but decode, resize and crop."""
    torch.set_num_threads(1)
    pictures = [data for _, data in read_shard(Path(shard))]
    out_HW3 = np.zeros((*geometry.size, 3), np.uint8)
    started, n = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        prepare(pictures[n % len(pictures)], geometry, DecodeSpec(), out_HW3)
        n += 1
    return n / elapsed


# --- parts, each run in a process of its own


def part_decode(options: argparse.Namespace) -> dict[str, Any]:
    """What one core can decode, and what all can at once."""
    from zsic.models.processor import read_geometry

    geometry = read_geometry(_checkpoint(options))
    shard, cores = sorted(Path(options.work, "few").glob("*.tar"))[0], len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        list(pool.map(decode_alone, *zip(*[(str(shard), geometry, 0.2)] * cores, strict=True)))  # they stand
        one = pool.submit(decode_alone, str(shard), geometry, options.seconds).result()
        # For long: cores that are all at work at once may give less after a while.
        long = 10 * options.seconds
        every = sum(pool.map(decode_alone, *zip(*[(str(shard), geometry, long)] * cores, strict=True)))
    return {"decode_a_core": one, "decode_all_cores": every, "cores": cores}


def part_encoder(options: argparse.Namespace) -> dict[str, Any]:
    """The tower by itself, and the actor by itself."""
    tower, device = TOWERS[options.model], options.device
    result: dict[str, Any] = {}
    checkpoint = _checkpoint(options)
    started = time.perf_counter()
    actor = _actor(options, checkpoint)
    result["actor_starts_s"] = time.perf_counter() - started
    result["batch_size"] = actor._batch_size
    encoder = actor._encoder
    pixels_BHW3 = np.random.default_rng(0).integers(0, 256, (8, tower.size, tower.size, 3), np.uint8)
    # Float32 on a GPU is without TF32, torch's default.
    expected = ImageEncoder(checkpoint, device=device, dtype="float32").encode(pixels_BHW3)
    cosine = float((encoder.encode(pixels_BHW3) * expected).sum(dim=1).min())
    if cosine < (0.99 if device == "cuda" else 0.9999):
        raise SystemExit(f"{options.model}: the tower's rows differ from float32's: cosine {cosine:.4f}")
    result["cosine_to_float32"] = cosine
    (head,) = actor._heads.heads
    ours = head.rank(expected, 5)
    theirs = head.to_device("cpu").rank(expected.cpu(), 5)
    if not torch.allclose(ours.score_BK.cpu(), theirs.score_BK, atol=1e-5):
        raise SystemExit(f"{options.model}: the device's scores differ from the CPU's")

    rates = {}
    for size in SIZES if device == "cuda" else (8,):
        if size > 4 * result["batch_size"]:
            break
        pixels = torch.randint(0, 256, (size, tower.size, tower.size, 3), dtype=torch.uint8, device=device)
        rates[size] = rate(lambda pixels=pixels: encoder.embed(pixels), size, device, options.seconds / 2)
    result["forward_by_size"] = rates
    result["forward"] = max(rates.values())
    result["matrix_flops"] = matrix_rate(device, options.seconds)  # by the same process, as warm as it is
    for calls in sorted({1, 2, GPU_CALLS, GPU_CALLS + 1}) if device == "cuda" else (1,):
        result[f"actor_{calls}"] = _actor_rate(options, actor, calls)
    result["actor"] = result[f"actor_{GPU_CALLS if device == 'cuda' else 1}"]
    if device == "cuda":
        result["device_GiB"] = torch.cuda.max_memory_reserved() / 2**30
    result["host_GiB"] = _resident() / 2**30
    return result


def part_compile(options: argparse.Namespace) -> dict[str, Any]:
    """The tower through torch.compile, at one size."""
    tower, device, seconds = TOWERS[options.model], options.device, options.seconds
    encoder = ImageEncoder(_checkpoint(options), device=device)
    size = 512 if tower.flops < 5e10 else 256 if tower.flops < 2e11 else 128
    started = time.perf_counter()
    # Within inference mode, inductor fails on views (torch 2.11).
    forward = torch.compile(lambda pixels: ImageEncoder.embed.__wrapped__(encoder, pixels), dynamic=False)  # type: ignore[attr-defined]
    pixels = torch.randint(0, 256, (size, tower.size, tower.size, 3), dtype=torch.uint8, device=device)
    try:
        with torch.no_grad():
            forward(pixels)
            synchronize(device)
            spent = time.perf_counter() - started
            return {"compiled": rate(lambda: forward(pixels), size, device, seconds), "compile_s": spent}
    except Exception as error:  # noqa: BLE001 - an option that fails here is a result, too
        return {"compile_failed": str(error)[:300]}


class _Deaf:
    def add_encoded(self, n_images: int, encode_s: float) -> None: ...
    def add_outcomes(self, outcomes: list[str]) -> None: ...


def _actor(options: argparse.Namespace, checkpoint: Checkpoint) -> Encode:
    """What Ray runs, without Ray."""
    head = compile_head(load_labels(LabelsSpec(names=tuple(LABELS))), TextEncoder(checkpoint))
    on_gpu = options.device == "cuda"
    spec = make_spec(
        {"source": "memory", "labels": LABELS, "output": "nowhere", "execution": {"num_gpus": int(on_gpu)}}
    )
    return Encode(
        checkpoint,
        Heads((head,), (5,)),
        spec,
        dtype="auto",
        batch_size=None if on_gpu else 8,
        n_threads=torch.get_num_threads(),
        reporter=_Deaf(),  # type: ignore[arg-type]
    )


def _actor_rate(options: argparse.Namespace, actor: Encode, calls: int) -> float:
    """Images/s through the actor, blocks in and rows out, `calls` of them at once."""
    size = TOWERS[options.model].size
    n = max(int(96e6 / (3 * size**2)) // 256 * 256, 64) if options.device == "cuda" else 16
    block = _block(n, size)
    with ThreadPoolExecutor(calls) as pool:
        list(pool.map(actor, [block] * 2 * calls))
        started, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < options.seconds:
            for table in pool.map(actor, [block] * 4 * calls):
                assert table.num_rows == n
                assert table["label"].null_count == 0
                done += n
    return done / elapsed


def _block(n: int, size: int) -> pa.Table:
    """A decoded block, read-only as Ray hands it out."""
    schema = decoded_schema(size, size)
    data = np.random.default_rng(1).integers(0, 256, n * size * size * 3, np.uint8).tobytes()
    pixels = pa.FixedSizeBinaryArray.from_buffers(schema.field(PIXELS).type, n, [None, pa.py_buffer(data)])
    columns: dict[str, list[Any]] = {
        "id": list(range(n)),
        "uri": ["shard.tar"] * n,
        "key": [f"{at:05}.jpg" for at in range(n)],
        "outcome": ["ok"] * n,
        "detail": [None] * n,
        "width": [500] * n,
        "height": [375] * n,
        SOURCE_TOTAL: [None] * n,
        KEPT: [None] * n,
    }
    arrays = [pixels if each.name == PIXELS else pa.array(columns[each.name], each.type) for each in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


class _Times(Watch):
    """How many rows were ready, and when."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def on_progress(self, progress: Progress) -> None:
        self.seen.append((time.perf_counter(), progress.n_encoded))

    def steady(self, n_images: int) -> tuple[float, float, float]:
        """Images/s between a fifth and nineteen twentieths of all, and when this began and ended."""
        within = [(at, n) for at, n in self.seen if 0.2 * n_images <= n <= 0.95 * n_images]
        if len(within) < 2:
            return float("nan"), 0.0, 0.0
        (first, n_first), (last, n_last) = within[0], within[-1]
        return (n_last - n_first) / max(last - first, 1e-9), first, last


class _Busy(threading.Thread):
    """The share of time in which the GPU computed anything, as its driver tells, several times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self._ended.wait(0.15):
                self.samples.append((time.perf_counter(), pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100))
        except Exception as error:  # noqa: BLE001 - a benchmark goes on without it
            print(f"GPU-busy share: {error}", file=sys.stderr)

    def share(self, first: float, last: float) -> float | None:
        self._ended.set()
        within = [share for at, share in self.samples if first <= at <= last]
        return sum(within) / len(within) if within else None


class _Cores(threading.Thread):
    """CPU time of this machine's processes by their name, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, Counter[str]]] = []
        self._spent: dict[str, tuple[str, float]] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                    user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                    seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
                    self._spent[folder.name] = (Path(name.split(" ")[0]).name, seconds)
            by_name: Counter[str] = Counter()
            for name, seconds in self._spent.values():
                by_name[name] += seconds  # type: ignore[assignment]
            self.samples.append((time.perf_counter(), by_name))

    def used(self, first: float, last: float) -> dict[str, float]:
        """Cores in use between two moments, by process name; what used a tenth of a core at least."""
        self._ended.set()
        within = [sample for sample in self.samples if first <= sample[0] <= last]
        if len(within) < 2:
            return {}
        (began, before), (ended, after) = within[0], within[-1]
        used = {name: round((after[name] - before[name]) / (ended - began), 2) for name in after}
        return {name: cores for name, cores in sorted(used.items(), key=lambda each: -each[1]) if cores >= 0.1}


def part_pipeline(options: argparse.Namespace) -> dict[str, Any]:
    """The job, whole."""
    import zsic

    name = options.model.replace("/", "-").replace("@", "-")
    source, out = Path(options.work, f"many-{name}"), Path(options.work, f"out-{name}")
    link_shards(sorted(Path(options.work, "few").glob("*.tar")), source, options.images)
    spec = make_spec(
        {
            "source": str(source),
            "labels": LABELS,
            "model": str(_checkpoint(options).folder),
            "output": {"uri": str(out), "rows_per_part": 20_000},
            "execution": {"num_gpus": int(options.device == "cuda")},
        }
    )
    busy, cores, times = _Busy(), _Cores(), _Times()
    cores.start()
    if options.device == "cuda":
        busy.start()
    started = time.perf_counter()
    summary = zsic.run(spec, times)
    wall = time.perf_counter() - started
    if summary.outcomes != {"ok": summary.n_rows}:
        raise SystemExit(f"not every image has a row with an answer: {dict(summary.outcomes)}")
    images_per_s, first, last = times.steady(summary.n_rows)
    return {
        "images": summary.n_rows,
        "pipeline": images_per_s,
        "busy": busy.share(first, last),
        "cores_used": cores.used(first, last),
        "steady_s": last - first,
        "wall_s": wall,
        "seconds": summary.seconds,
        "first_rows_s": next(at for at, n_rows in times.seen if n_rows) - started,
    }


def part_hf(options: argparse.Namespace) -> dict[str, Any]:
    """Transformers' pipeline, pictures in memory; on the GPU in bfloat16."""
    device = options.device
    pipe = transformers.pipeline(
        "zero-shot-image-classification",
        model=str(_checkpoint(options).folder),
        device=0 if device == "cuda" else "cpu",
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
    )
    shards = sorted(Path(options.work, "few").glob("*.tar"))
    encoded = [data for _, data in read_shard(shards[0])][:64]
    labels = LABELS if not options.smoke else LABELS[:10]

    def answer() -> None:
        pipe([Image.open(io.BytesIO(data)) for data in encoded], candidate_labels=labels, batch_size=64)

    answer()
    n, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < 2 * options.seconds:
        answer()
        n += len(encoded)
    return {"hf": n / elapsed}


class _Shards(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Pictures of shards, each prepared by PIL and made float32, as embedding tools do."""

    def __init__(self, shards: list[Path], size: int) -> None:
        self._shards, self._size = shards, size

    def __iter__(self) -> Iterator[torch.Tensor]:
        torch.set_num_threads(1)
        mean = torch.tensor([0.481, 0.458, 0.408]).view(3, 1, 1)
        std = torch.tensor([0.269, 0.261, 0.276]).view(3, 1, 1)
        while True:
            for shard in self._shards:
                for _, data in read_shard(shard):
                    image = Image.open(io.BytesIO(data)).convert("RGB")
                    scale = self._size / min(image.size)
                    image = image.resize((round(image.width * scale), round(image.height * scale)), 3)
                    left, top = (image.width - self._size) // 2, (image.height - self._size) // 2
                    image = image.crop((left, top, left + self._size, top + self._size))
                    x_3HW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
                    yield (x_3HW - mean) / std


def part_loader(options: argparse.Namespace) -> dict[str, Any]:
    """A DataLoader in front of the tower in float16, unit vectors out."""
    tower, device = TOWERS[options.model], options.device
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = transformers.AutoModel.from_pretrained(str(_checkpoint(options).folder), dtype=dtype)
    model = model.to(device).eval()
    cores = len(os.sched_getaffinity(0))
    batch = 256 if device == "cuda" else 16
    loader = torch.utils.data.DataLoader(
        _Shards(sorted(Path(options.work, "few").glob("*.tar")), tower.size),
        batch_size=batch,
        num_workers=cores,
        pin_memory=device == "cuda",
        prefetch_factor=2,
    )
    n, started = 0, 0.0
    with torch.inference_mode():
        for number, x_B3HW in enumerate(loader):
            rows = model.get_image_features(pixel_values=x_B3HW.to(device, dtype, non_blocking=True)).pooler_output
            torch.nn.functional.normalize(rows.float(), dim=-1).cpu()
            if number == 2 * cores:  # what the workers had ready is gone
                n, started = 0, time.perf_counter()
            elif number > 2 * cores:
                n += batch
                if time.perf_counter() - started > 2 * options.seconds:
                    break
    return {"loader": n / (time.perf_counter() - started)}


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    folder = Path(options.work, "models", options.model.replace("/", "-"))
    return resolve(ModelSpec(name=str(make_checkpoint(TOWERS[options.model], folder, options.device))))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


PARTS = {
    "decode": part_decode,
    "encoder": part_encoder,
    "compile": part_compile,
    "pipeline": part_pipeline,
    "hf": part_hf,
    "loader": part_loader,
}

# --- all of it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shards", help="tar shards of JPEG photographs, a glob; drawn ones without it")
    parser.add_argument("--models", default="B/32,B/16,L/14,L/14@336,SO400M@384")
    parser.add_argument(
        "--parts",
        default="decode,encoder,pipeline,hf,loader",
        help="in this order; PART:MODEL+MODEL for some models only",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--pipeline-s", type=float, default=12.0, help="how long a pipeline shall run")
    parser.add_argument("--budget-s", type=float, default=470.0, help="nothing is begun after so long")
    parser.add_argument("--smoke", action="store_true", help="tiny models, seconds, no meaning")
    parser.add_argument("--results", help="a Markdown file to write")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.smoke:
        options.seconds, options.pipeline_s = 0.3, 1.0
        options.models = "smoke,smoke-siglip" if options.models.startswith("B/32,") else options.models
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as work:
        options.work = work
        few = Path(work, "few")
        few.mkdir()
        if options.shards:
            for path in sorted(Path().glob(options.shards)) or [Path(options.shards)]:
                shutil.copyfile(path, few / path.name)
        else:
            draw_shard(few / "drawn.tar")
        _run_all(options)


def _run_all(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    models = options.models.split(",")
    found: dict[str, dict[str, Any]] = {model: {} for model in models}
    for part in options.parts.split(","):
        part, colon, some = part.partition(":")
        for model in some.split("+") if colon else models:
            if time.perf_counter() - started > options.budget_s:
                print(f"no time left for {part} of {model}", flush=True)
                continue
            result = _run(options, part, model, _images(options, found[model]))
            print(json.dumps({part: model, "after_s": round(time.perf_counter() - started), **result}), flush=True)
            found[model] |= result
            if part == "decode":  # it depends on the pixels alone
                for other in models:
                    if TOWERS[other].size == TOWERS[model].size:
                        found[other] |= result
    text = report(options, found)
    print(text)
    if options.results:
        Path(options.results).write_text(text)


def _images(options: argparse.Namespace, found: dict[str, Any]) -> int:
    """So many that the pipeline runs for about as long as asked."""
    expected = min(found.get("forward", float("inf")), found.get("decode_all_cores", 500.0))
    return max(int(expected * options.pipeline_s), 400)


def _run(options: argparse.Namespace, part: str, model: str, images: int = 0) -> dict[str, Any]:
    """Run one part in a process of its own; what it prints last is its result."""
    command = [sys.executable, __file__, "--part", part, "--model", model, "--work", options.work]
    command += ["--device", options.device, "--seconds", str(options.seconds), "--images", str(images)]
    command += ["--smoke"] * options.smoke
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        print(done.stdout[-1500:], done.stderr[-2500:], file=sys.stderr, flush=True)
        return {f"{part}_failed": done.returncode}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def report(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    """The table, with limits and peers beside each rate."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    flops = float(np.nanmax([one.get("matrix_flops", float("nan")) for one in found.values()]))
    lines = [
        f"# The GPU encoder and the job around it: {device}, {cores} cores, {time.strftime('%Y-%m-%d')}",
        "",
        f"`benchmarks/gpu.py`; torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}; matrix rate {flops / 1e12:.0f} TFLOP/s; 1,000 labels; images/s.",
        "",
        "| model | GFLOP | forward (of matrix rate) | actor (of forward) | decode limit | pipeline (of the lower) | "
        "GPU busy | HF pipeline | DataLoader loop | to best peer |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, one in found.items():
        forward, actor, pipeline = (one.get(name) or float("nan") for name in ("forward", "actor", "pipeline"))
        decode, hf, loader = (one.get(name) or float("nan") for name in ("decode_all_cores", "hf", "loader"))
        lower, peer = np.nanmin([forward, decode]), np.nanmax([hf, loader])
        busy = one.get("busy")
        lines.append(
            f"| {model} | {TOWERS[model].flops / 1e9:.1f} "
            f"| {forward:.0f} ({forward * TOWERS[model].flops / flops:.0%}) "
            f"| {actor:.0f} ({actor / forward:.0%}) | {decode:.0f} | {pipeline:.0f} ({pipeline / lower:.0%}) "
            f"| {'-' if busy is None else f'{busy:.0%}'} | {hf:.0f} | {loader:.0f} | {pipeline / peer:.1f}x |"
        )
    return "\n".join([*lines, "", "```", json.dumps(found, indent=1), "```", ""])


if __name__ == "__main__":
    main()
