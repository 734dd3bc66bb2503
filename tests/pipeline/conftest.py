"""One small Ray cluster for all tests here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.checkpoints import pictures, tiny_checkpoints
from support.runs import LABELS

from zsic.core.spec import JobSpec, make_spec

__all__ = ["pictures", "tiny_checkpoints"]


@pytest.fixture(scope="session")
def cluster_address(s3_server: str) -> Iterator[str]:
    """A cluster of one node with 2 CPUs, in this test run only; runs connect to it and leave it standing.

    Its workers find the S3 server's credentials as workers do: in the environment that they were started in.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "object_store_memory": 200 * 2**20,
                "include_dashboard": False,
            },
        )
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def spec_for(cluster_address: str, tmp_path: Path) -> Callable[..., JobSpec]:
    """Make a spec that runs on the shared cluster with the bundled model."""

    def make(source: object, output: object = tmp_path / "out", **fields: object) -> JobSpec:
        execution = {"address": cluster_address, "no_progress_timeout_s": 120}
        execution |= fields.pop("execution", {})  # type: ignore[call-overload]
        return make_spec(
            {
                "source": source,
                "labels": LABELS,
                "output": output if isinstance(output, dict) else str(output),
                "model": "demo",
                "execution": execution,
                **fields,
            }
        )

    return make
