"""`zsic evaluate` from its arguments to what it prints."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsic.cli import run_command
from zsic.core.schema import output_schema, with_metadata

MakeRow = Callable[..., dict[str, Any]]
Zsic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def zsic(capfd: pytest.CaptureFixture[str]) -> Zsic:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command([str(each) for each in arguments])
        told = capfd.readouterr()
        return code, told.out, told.err

    return run


def publish(folder: Path, rows: Sequence[dict[str, Any]], labels: Sequence[str] | None = None) -> Path:
    """An output, as far as `evaluate` looks at it."""
    (folder / "_zsic" / "snapshot").mkdir(parents=True)
    schema = with_metadata(output_schema(), {"labels": labels})
    pq.write_table(pa.Table.from_pylist(list(rows), schema), folder / "part-x.parquet")
    part = {"name": "part-x.parquet", "n_rows": len(rows), "n_bytes": 1, "digest": "x", "first_id": 0, "last_id": 0}
    snapshot = {
        "sequence": 1,
        "parent": None,
        "plan_digest": "x",
        "fingerprint": "x",
        "parts": [part],
        "n_rows": len(rows),
        "increment": {"n_sources": 1, "n_rows": len(rows), "outcomes": {"ok": len(rows)}},
    }
    (folder / "_zsic" / "snapshot" / "00000001.json").write_text(json.dumps(snapshot))
    return folder


@pytest.fixture
def outputs(make_row: MakeRow, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two outputs and a truth."""
    names = [("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "cat\x1b[2J")]
    now = publish(tmp_path / "now", [make_row(f"{i}.jpg", [now, "cow"]) for i, (now, _) in enumerate(names)])
    before = publish(tmp_path / "before", [make_row(f"{i}.jpg", [was]) for i, (_, was) in enumerate(names)])
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,label\n0.jpg,Cat\n1.jpg,cat\n2.jpg,cat\n3.jpg,yak\n")
    return now, before, truth


def test_an_output_is_evaluated(zsic: Zsic, outputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    now, _, truth = outputs
    code, told, _ = zsic("evaluate", now, "--truth", truth, "--parquet", tmp_path / "figures.parquet")
    assert code == 0
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "top-1 50.0 % (15.0 to 85.0)" in lines
    assert "label images top-1 precision F1" in lines
    assert "cat dog 1 of 3" in lines
    figures = {(row["metric"], row["label"]): row for row in pq.read_table(tmp_path / "figures.parquet").to_pylist()}
    assert figures["top1", None]["value"] == 0.5
    code, told, _ = zsic("evaluate", now, "--truth", truth, "--json")
    assert code == 0
    fields = json.loads(told)
    assert fields["top1"]["n_right"] == 2
    # Without a label set nothing is known to be none of it.
    assert fields["unknown"] is None


def test_a_label_set_is_given(zsic: Zsic, outputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    now, _, truth = outputs
    (tmp_path / "labels.txt").write_text("cow\ncat\ndog\n")
    code, told, _ = zsic("evaluate", now, "--truth", truth, "--labels", tmp_path / "labels.txt", "--json")
    assert code == 0
    fields = json.loads(told)
    assert fields["unknown"] == {"yak": 1}
    assert [row["label"] for row in fields["per_label"]] == ["cow", "cat", "dog", "yak"]


def test_labels_of_another_column_may_be_lists(zsic: Zsic, outputs: tuple[Path, Path, Path]) -> None:
    now, _, truth = outputs
    truth.write_text("uri,label,tags\n0.jpg,x,cow;cat\n1.jpg,x,dog\n2.jpg,x,cat;dog;yak\n3.jpg,x,yak\n")
    code, told, _ = zsic("evaluate", now, "--truth", truth, "--label-column", "tags", "--json")
    assert code == 0
    assert json.loads(told)["top1"]["n_right"] == 2


def test_two_outputs_are_compared(zsic: Zsic, outputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    now, before, truth = outputs
    figures = tmp_path / "figures.parquet"
    code, told, _ = zsic("evaluate", now, "--against", before, "--truth", truth, "--parquet", figures)
    assert code == 0
    assert "\x1b" not in told
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "images in both 4" in lines
    assert "gained and lost 1 and 0; McNemar's p = 1" in lines
    assert "dog cat 1 1.jpg" in lines
    assert r"cat\x1b[2J dog 1 3.jpg" in lines
    assert "gained" in {row["metric"] for row in pq.read_table(figures).to_pylist()}
    code, told, _ = zsic("evaluate", now, "--against", before, "--json")
    assert code == 0
    fields = json.loads(told)
    assert (fields["n_both"], fields["accuracy"], fields["alike"]["n_right"]) == (4, None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--truth is missing"),
        (("--truth", "folder", "--against-set", "x"), "--against-set is given without --against"),
        (("--against", "NOWHERE", "--set", "colours"), "nothing is published there yet"),
        (("--truth", "folder"), "none of the output's 4 rows has one"),
        (("--truth", "TRUTH", "--set", "colours"), "has no column 'label_colours'"),
        (("--truth", "TRUTH", "--labels", "a,,a"), "'a'"),
        (("--truth", "TRUTH", "--parquet", "NOWHERE/x.parquet"), "cannot be written"),
        (("--truth", "TRUTH", "--parquet", "s3://KEY:SECRET@bucket/x"), "credentials"),
        (("--against", "s3://KEY:SECRET@bucket/x"), "credentials"),
        (("--truth", "TRUTH", "--label-column", "tags"), "has no column 'tags'"),
        (("--truth", "folder", "--label-column", "tags"), "--label-column is for a truth that is a table"),
        (("--against", "BEFORE", "--label-column", "tags"), "--label-column is of --truth, which is missing"),
    ],
)
def test_mistakes_are_explained(
    zsic: Zsic, outputs: tuple[Path, Path, Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    now, before, truth = outputs
    places = {
        "TRUTH": str(truth),
        "BEFORE": str(before),
        "NOWHERE": str(tmp_path / "nowhere"),
        ".": str(tmp_path / "empty"),
    }
    made = [
        each.replace("NOWHERE", places["NOWHERE"]) if "NOWHERE" in each else places.get(each, each)
        for each in arguments
    ]
    code, told, err = zsic("evaluate", now, *made)
    assert (code, told) == (2, "")
    assert message in err
    assert "SECRET" not in err
    assert "Traceback" not in err
