"""How benchmarks measure: CPU seconds of whole process trees, medians, ratios within one run; and where results go."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray  # noqa: F401 - it brings psutil

import psutil  # isort: skip

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Spent:
    """What a process and all it started took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Of the largest sum of resident memory that was seen; shared pages count once a process."""
    result: dict[str, Any]
    """What its last line of output says, as JSON."""


def spend(command: Sequence[str], *, timeout: float = 1800) -> Spent:
    """Run a command to its end.  CPU seconds are those that its tree had been seen with last, ten times a second."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        root, seen, peak = psutil.Process(process.pid), {}, 0
        ended = threading.Event()

        def look() -> None:
            nonlocal peak
            while not ended.wait(0.1):
                resident = 0
                try:
                    tree = [root, *root.children(recursive=True)]
                except psutil.Error:
                    return
                for each in tree:
                    try:
                        times = each.cpu_times()
                        seen[each.pid] = times.user + times.system
                        resident += each.memory_info().rss
                    except psutil.Error:
                        continue
                peak = max(peak, resident)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        out, _ = process.communicate(timeout=timeout)
        ended.set()
        thread.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    lines = out.strip().splitlines()
    result = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Spent(time.perf_counter() - started, sum(seen.values()), peak, result)


def cpu_ms(call: Callable[[], object], n: int, repeats: int = 5) -> float:
    """CPU milliseconds of this process for one of the `n` things that a call does: the median of several calls."""
    call()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        taken.append((time.process_time() - started) / n * 1e3)
    return statistics.median(taken)


def python(script: Path | str, *arguments: object) -> list[str]:
    """The command that runs a script with this Python."""
    return [sys.executable, str(script), *map(str, arguments)]


def machine() -> str:
    """Hardware and versions, in one line."""
    names = ("torch", "transformers", "ray", "pillow", "simplejpeg", "pyarrow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, {versions}"
    )


def write_results(theme: str, text: str) -> Path:
    """`results/<theme>_<hardware>_<date>.md`."""
    cores = len(os.sched_getaffinity(0))
    path = RESULTS / f"{theme}_{cores}-cpu-cores_{time.strftime('%Y-%m-%d')}.md"
    path.write_text(text, encoding="utf-8")
    return path
