from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from zsic.core.errors import SpecError
from zsic.evaluate import Evaluation, compare, evaluate, load_truth, to_table, write_figures

MakeRow = Callable[..., dict[str, Any]]
WritePart = Callable[..., str]


@pytest.fixture
def parts(make_row: MakeRow, write_part: WritePart) -> tuple[str, str]:
    rows = [make_row(f"x/cat/{i}.jpg", [["cat", "dog"][i % 4 == 0], "cow"]) for i in range(8)]
    rows.append(make_row("x/horse/9.jpg"))
    other = [make_row(f"x/cat/{i}.jpg", ["cat", "cow"]) for i in range(8)]
    return write_part(rows, "1.parquet", labels=["cat", "dog", "cow"]), write_part(other, "2.parquet")


@pytest.fixture
def evaluation(parts: tuple[str, str]) -> Evaluation:
    return evaluate(parts[0], load_truth("folder"))


def rows_of(table: Any) -> dict[tuple[str, str | None], dict[str, Any]]:
    rows = table.to_pylist()
    named = {(row["metric"], row["label"]): row for row in rows}
    assert len(named) == len(rows)
    return named


def test_an_evaluation_is_a_table(evaluation: Evaluation) -> None:
    rows = rows_of(to_table(evaluation))
    low, high = evaluation.top1.interval
    assert rows["top1", None] == {"metric": "top1", "label": None, "value": 6 / 9, "low": low, "high": high, "n": 9}
    assert evaluation.means is not None
    assert rows["macro_f1", None]["value"] == evaluation.means.f1.value
    assert rows["macro_f1", None]["low"] == evaluation.means.f1.low
    assert rows["recall", "cat"]["value"] == 0.75
    assert rows["precision", "dog"] | {"low": 0, "high": 0} == {
        "metric": "precision", "label": "dog", "value": 0.0, "low": 0, "high": 0, "n": 2,
    }  # fmt: skip
    assert ("recall", "dog") not in rows
    assert rows["confused", "cat -> dog"]["value"] == 0.25
    assert rows["unknown", "horse"]["value"] == 1 / 9
    assert rows["failed", "corrupt"]["n"] == 9
    assert rows["reliability", "0.467 to 0.533"]["value"] == 0.75
    assert rows["coverage", "0.5"]["value"] == 1.0
    assert rows["accuracy_at", "0.5"]["value"] == 0.75


def test_a_comparison_is_a_table(parts: tuple[str, str]) -> None:
    rows = rows_of(to_table(compare(*parts, load_truth("folder"))))
    assert rows["in_both", None]["value"] == 8
    assert rows["only_output", None]["value"] == 1
    assert rows["changed", "cat -> dog"] | {"low": 0, "high": 0} == {
        "metric": "changed", "label": "cat -> dog", "value": 0.25, "low": 0, "high": 0, "n": 8,
    }  # fmt: skip
    assert (rows["difference", None]["value"], rows["difference", "cat"]["value"]) == (-0.25, -0.25)
    assert rows["p_value", None]["value"] == 0.5
    assert rows["total_variation", None]["value"] == 0.25
    assert rows["kolmogorov_smirnov", None]["low"] == 0.0


def test_it_is_written_here_and_elsewhere(evaluation: Evaluation, tmp_path: Path) -> None:
    write_figures(evaluation, str(tmp_path / "figures.parquet"))
    memory = fsspec.filesystem("memory")
    write_figures(evaluation, "/figures.parquet", memory)
    try:
        with memory.open("/figures.parquet") as file:
            assert pq.read_table(file).equals(pq.read_table(tmp_path / "figures.parquet"))
    finally:
        memory.rm("/", recursive=True)
    assert pq.read_table(tmp_path / "figures.parquet").equals(to_table(evaluation))


def test_a_place_that_is_not_there_is_told(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none/figures\.parquet cannot be written: No such file"):
        write_figures(evaluation, str(tmp_path / "none" / "figures.parquet"))
