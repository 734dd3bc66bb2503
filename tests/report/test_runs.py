"""What runs say of themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from zsic.core.spec import StoreSpec
from zsic.report.runs import MOST_READ, read_runs
from zsic.storage.store import open_store


def record(**changed: Any) -> dict[str, Any]:
    return {
        "state": "complete",
        "started": "2026-11-27T10:50:18+00:00",
        "ended": "2026-11-27T10:51:05+00:00",
        "n_rows": 310,
        "n_rows_before": 10,
        "images_per_s": 12.5,
        "seconds": {"flow": 24.0, "publish": 1.0, "fetch": 0.5, "decode": 3.0, "encode": 6.0, "write": 0.1},
        "progress": {"n_decoded": 300, "n_encoded": 290, "n_rows": 300, "n_bytes": 9_000},
        "layout": {"decode_tasks": 2, "encoders": 1, "write_tasks": 1},
        "nodes": [{"cpus": 2.0}],
        "versions": {"ray": "2.60.0"},
    } | changed


def keep(folder: Path, name: str, text: str) -> None:
    (folder / "_zsic" / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "_zsic" / "runs" / name).write_text(text)


def test_a_run_in_numbers(tmp_path: Path) -> None:
    keep(tmp_path, "20261127T105105Z-0.json", json.dumps(record()))
    (run,), n = read_runs(open_store(str(tmp_path), StoreSpec()))
    assert n == 1
    assert (run.n_rows, run.images_per_s, run.seconds, run.n_nodes) == (300, 12.5, 25.0, 1)
    assert run.rate_of("decode") == pytest.approx(100)
    assert run.rate_of("encode") == pytest.approx(290 / 6)
    assert run.n_workers["decode"] == 2
    assert run.versions == (("ray", "2.60.0"),)


def test_one_that_stopped_has_no_rate_and_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    keep(tmp_path, "1.json", json.dumps(record(state="stopped", reason="interrupted", progress=None, layout=None)))
    keep(tmp_path, "2.json", "{")
    keep(tmp_path, "3.json", json.dumps([1]))
    keep(tmp_path, "4.json", json.dumps({"state": "complete"}))
    (run,), n = read_runs(open_store(str(tmp_path), StoreSpec()))
    assert n == 4
    assert (run.state, run.reason, run.images_per_s, run.stage_s) == ("stopped", "interrupted", None, {})
    assert run.rate_of("decode") is None


def test_the_latest_are_read_oldest_first(tmp_path: Path) -> None:
    for number in range(MOST_READ + 3):
        keep(tmp_path, f"{number:08d}.json", json.dumps(record(n_rows=number + 10)))
    runs, n = read_runs(open_store(str(tmp_path), StoreSpec()))
    assert n == MOST_READ + 3
    assert [run.n_rows for run in runs] == list(range(3, MOST_READ + 3))


def test_none(tmp_path: Path) -> None:
    assert read_runs(open_store(str(tmp_path), StoreSpec())) == ([], 0)
