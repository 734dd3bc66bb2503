"""Machines to lay a job out on: this one, or those of `--cluster` (`10x16cpu`, `2x16cpu1gpu64gb,8x32cpu`)."""

import contextlib
import os
import re
from pathlib import Path

from zsic.core.errors import SpecError
from zsic.core.spec import ExecutionSpec
from zsic.pipeline.capacity import Node

GB_PER_CPU = 4
"""Of machines for general purposes, where the words do not tell."""
OF_TASKS = 0.6
"""Ray's share of a machine's memory for tasks and actors."""
OF_OBJECTS = 0.3
"""Ray's share of a machine's memory for the object store."""

_NODES = re.compile(r"(?:(?P<n>\d+)x)?(?P<cpus>\d+)cpu(?:(?P<gpus>\d+)gpu)?(?:(?P<gb>\d+)gb)?")


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Read `--cluster`: kinds of nodes between commas, each `[COUNTx]CPUScpu[GPUSgpu][MEMORYgb]`.

    >>> [(node.cpus, node.gpus) for node in parse_nodes("2x4cpu,16cpu1gpu64gb")]
    [(4.0, 0.0), (4.0, 0.0), (16.0, 1.0)]
    """
    nodes: list[Node] = []
    for part in text.split(","):
        found = _NODES.fullmatch(part.strip().lower())
        if found is None or int(found["n"] or 1) == 0 or int(found["cpus"]) == 0:
            raise SpecError(
                f"--cluster: {part.strip()!r} is no kind of node; write 10x16cpu, with GPUs 10x16cpu1gpu, with "
                "memory 10x16cpu1gpu64gb, and commas between kinds"
            )
        cpus = int(found["cpus"])
        memory = int(found["gb"] or GB_PER_CPU * cpus) * 10**9
        nodes += [make_node(cpus, int(found["gpus"] or 0), memory)] * int(found["n"] or 1)
    return tuple(nodes)


def make_node(cpus: float, gpus: float, memory_bytes: int) -> Node:
    """What Ray would offer of a machine with so much memory in all."""
    return Node(float(cpus), float(gpus), int(OF_TASKS * memory_bytes), int(OF_OBJECTS * memory_bytes))


def this_machine(execution: ExecutionSpec) -> Node:
    """Return what this machine offers to a job."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = _count_gpus() if execution.num_gpus else 0.0
    return make_node(execution.num_cpus or available_cpus(), gpus, memory)


def available_cpus() -> int:
    """Return the CPUs that this process may use, by affinity and container limits."""
    limit = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        limit = min(limit, max(1, int(int(quota) / int(period))))
    return limit


def _count_gpus() -> float:
    import torch

    return float(torch.cuda.device_count())
