"""What Prometheus gets, and what the dashboard shows of it."""

import json
import re
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from support.runs import write_shard

from zsic.core.spec import JobSpec
from zsic.pipeline.metrics import BATCH_IMAGES, IMAGES, METRICS, Meter

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SELECTOR = re.compile(r"(ray_\w+)\{(.*?)\}")


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = {name for expression in EXPRESSIONS for name in re.findall(r"ray_\w+", expression)}
    assert shown == {metric.exported for metric in METRICS}


def test_the_table_beside_the_dashboard_has_every_metric() -> None:
    text = (MONITORING / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(ray_\w+)` \| ([\w, ]+) \|", text, re.MULTILINE))
    assert rows == {metric.exported.removesuffix("_bucket"): ", ".join(metric.tags) for metric in METRICS}


def test_the_dashboard_asks_for_tags_that_are_there() -> None:
    tags = {metric.exported: set(metric.tags) for metric in METRICS}
    for expression in EXPRESSIONS:
        found = SELECTOR.findall(expression)
        assert len(found) == expression.count("ray_")
        names = {name for name, _ in found}
        for name, selector in found:
            assert set(re.findall(r"(\w+)!?=", selector)) <= tags[name]
            assert 'output=~"$output"' in selector
        for group in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(group.split(", ")) - {"le"} <= set.union(*(tags[name] for name in names))


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert IMAGES.exported in variables["output"]["query"]["query"]
    for holder in (*panels, variables["output"], *(target for panel in panels for target in panel["targets"])):
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["description"]
        for expression in (target["expr"] for target in panel["targets"]):
            assert all(expression.count(left) == expression.count(right) for left, right in ("()", "{}", "[]"))
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


def test_prometheus_finds_ray_on_machines_and_in_kubernetes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text(encoding="utf-8"))
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


def test_a_metric_that_fails_does_not_fail_the_work() -> None:
    meter = Meter("out")
    meter.count(IMAGES, 0)  # Ray refuses to add nothing
    meter.count(IMAGES, 1)  # without the tags it has
    meter.set(BATCH_IMAGES, 1, node="n")  # nor is a histogram set
    meter.observe(IMAGES, 1, node="n", outcome="ok")  # a counter does not observe


@pytest.mark.ray
def test_prometheus_reads_what_the_summary_says(ray_spec_for: Callable[..., JobSpec], tmp_path: Path) -> None:
    import ray

    from zsic.pipeline.cluster import connect
    from zsic.pipeline.run import run

    source = write_shard(tmp_path / "s.tar", range(60))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    spec = ray_spec_for([str(source), str(tmp_path / "bad.png")], execution={"block_rows": 16})
    summary = run(spec)
    assert summary.progress is not None
    with connect(spec.execution):
        (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def sums() -> dict[str, float]:
        return _sum_up(requests.get(url, timeout=10).text, spec.output.uri)

    deadline = time.monotonic() + 30
    while "ray_zsic_parts_total" not in (found := sums()) and time.monotonic() < deadline:
        time.sleep(0.5)
    progress = summary.progress
    expected = {
        'ray_zsic_images_total{outcome="ok"}': 60,
        'ray_zsic_images_total{outcome="not_an_image"}': 1,
        "ray_zsic_read_bytes_total": progress.n_bytes,
        **{f'ray_zsic_stage_seconds_total{{stage="{name}"}}': value for name, value in progress.stage_s.items()},
        "ray_zsic_encoder_busy_seconds_total": progress.busy_s,
        "ray_zsic_parts_total": progress.n_parts,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["ray_zsic_batch_images_count"] == found['ray_zsic_batch_images_bucket{le="+Inf"}'] >= 60 / 16
    assert {re.sub("_count$", "_bucket", name.partition("{")[0]) for name in found} >= {
        metric.exported for metric in METRICS if metric.kind != "gauge"
    }


def _sum_up(text: str, output: str) -> dict[str, float]:
    """Our metrics of one output, summed over nodes and processes."""
    sums: dict[str, Any] = {}
    for name, labels, value in re.findall(r"^(ray_zsic_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        if f'output="{output}"' in labels:
            kept = [
                label
                for label in re.findall(r'\w+="[^"]*"', labels)
                if label.split("=")[0] in ("outcome", "stage", "le")
            ]
            key = name + ("{" + ",".join(kept) + "}" if kept else "")
            sums[key] = sums.get(key, 0.0) + float(value)
    return sums
