"""How fast a cluster does a job, and what bounds it, from what an image costs.  Arithmetic only."""

from collections.abc import Sequence
from dataclasses import dataclass

from zsic.pipeline.capacity import Layout, Node
from zsic.pipeline.sample import ImageCost

OVERHEAD = 1.25
"""CPU time of the job for that of its bare functions: 1.2 on a quiet machine, up to 1.4 on a busy one (pickling,
blocks, rows, Ray; benchmarks/results/pipeline_2-cpu-cores_2026-11-26.md)."""
BUSY = 0.85
"""The share of its cores' time that a job uses while images flow: stages wait for one another.  Measured: 0.70 from
shards and 0.97 from files on 2 cores (images/s times CPU ms in the same table), 0.95 on 16 beside a GPU."""
START_S = 20.0
"""Before images flow: 12 to 20 s on a cold machine of 2 cores, 25 with a GPU."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Images/s that each resource of a cluster would do by itself."""

    cpu: float
    network: float
    gpu: float | None = None
    """None where images are encoded on CPUs."""

    @property
    def bounds(self) -> dict[str, float]:
        """By name, the least first: that one is the bound."""
        bounds = {"CPU": self.cpu, "network": self.network} | ({} if self.gpu is None else {"GPU": self.gpu})
        return dict(sorted(bounds.items(), key=lambda each: each[1]))

    @property
    def bound(self) -> str:
        return next(iter(self.bounds))

    @property
    def images_per_s(self) -> float:
        return self.bounds[self.bound]


def predict(cost: ImageCost, layout: Layout, nodes: Sequence[Node]) -> Prediction:
    """Predict the rate while images flow.

    Nodes count as equal to the machine on which the cost was measured, and its streams as not in each other's way.
    """
    decode_cpu_s = OVERHEAD * (cost.fetch_cpu_s + cost.decode_cpu_s)
    encode_cpu_s = OVERHEAD * cost.encode_cpu_s
    # The cores are shared by who needs them, but neither stage can use more than it has threads.
    cpu = BUSY * min(
        sum(node.cpus for node in nodes) / max(decode_cpu_s + encode_cpu_s, 1e-9),
        layout.decode_tasks * layout.decode_threads / max(decode_cpu_s, 1e-9),
        layout.encoders * layout.encoder_threads / max(encode_cpu_s, 1e-9),
    )
    network = layout.decode_tasks / max(cost.fetch_s, 1e-9)
    gpus = layout.encoders * min(layout.encoder_gpus or 1.0, 1.0)
    gpu = gpus / cost.gpu_s if cost.gpu_s else None
    return Prediction(cpu, network, gpu)


def cost_of(seconds: float, price_per_hour: float) -> float:
    """What a cluster costs for so many seconds of flow, and to start."""
    return price_per_hour * (seconds + START_S) / 3600
