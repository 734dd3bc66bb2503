"""`zsic demo`: the whole job on pictures that it draws itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsic.console.job import run_job
from zsic.console.report import report
from zsic.console.words import count, err, out, show_table
from zsic.core.spec import make_spec

IMAGES_PER_SHARD = 500
N_BROKEN = 6
N_ROWS_SHOWN = 8


def demo(folder: Path, n_images: int, seed: int, engine: str = "ray") -> None:
    """Draw, classify on Ray or another engine, show rows of the table, evaluate, and report."""
    from zsic.demo.label_sets import labels
    from zsic.demo.shards import TRUTH_NAME, write_shards

    shards, table, names = folder / "shards", folder / "table", folder / "labels.txt"
    truth = shards / TRUTH_NAME
    if truth.exists():
        err.print(f"pictures are in {shards} already", style="dim", markup=False)
    else:
        err.print(f"drawing {count(n_images)} pictures into {shards} ...", style="dim", markup=False)
        write_shards(shards, n_images, seed, images_per_shard=IMAGES_PER_SHARD, n_broken=N_BROKEN)
    names.write_text("".join(f"{name}\n" for name in labels()), encoding="utf-8")

    _say(f"zsic classify '{shards}/*.tar' --labels {names} --output {table}")
    run_job(
        make_spec(
            {"source": f"{shards}/*.tar", "labels": str(names), "output": str(table), "execution": {"engine": engine}}
        )
    )

    _say(f"duckdb -c \"select key, outcome, label, score, predictions from '{table}/*.parquet' limit {N_ROWS_SHOWN}\"")
    show_table(
        ["key", "outcome", "label", "score", "next best", "score"],
        [_as_cells(row) for row in _first_rows(table)],
        right=(3, 5),
    )

    _say(f"zsic evaluate {table} --truth {truth}")
    show_table(["", "images", "top-1 (95 % interval)", "top-5"], _accuracies(folder, table, truth), right=(1,))
    page = folder / "report.html"
    _say(f"zsic report {table} --truth {truth} --output {page}")
    report(str(table), page, truth=str(truth))
    out.print()
    out.print(f"{len(labels())} labels, such as {', '.join(labels()[:3])}; no picture or caption of the held-out pairs")
    out.print("was in the model's training.  Run it again: nothing is done twice.")


def _say(command: str) -> None:
    out.print()
    out.print(f"$ {command}", style="bold", markup=False)


def _first_rows(table: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    columns = ["key", "outcome", "label", "score", "predictions"]
    rows: list[dict[str, Any]] = pq.read_table(min(table.glob("*.parquet")), columns=columns).to_pylist()
    failed = [row for row in rows if row["outcome"] != "ok"]
    return [*rows[: N_ROWS_SHOWN - 1], *failed[:1]]


def _as_cells(row: dict[str, Any]) -> Sequence[object]:
    second = row["predictions"][1] if row["predictions"] else {"label": None, "score": None}
    return (row["key"], row["outcome"], row["label"], row["score"], second["label"], second["score"])


def _accuracies(folder: Path, table: Path, truth: Path) -> list[Sequence[object]]:
    """Accuracy on all pictures, on pairs of shape and colour that training saw, and on those it did not."""
    import pyarrow.csv as csv

    from zsic.evaluate import evaluate, load_truth

    rows: list[Sequence[object]] = []
    whole = csv.read_csv(truth)
    held_out = [str(value).lower() == "true" for value in whole["held_out"].to_pylist()]
    for name, picked in (
        ("all pictures", [True] * len(held_out)),
        ("pairs of shape and colour seen in training", [not each for each in held_out]),
        ("pairs held out of training", held_out),
    ):
        part = folder / f"truth-{name.split()[0]}-{name.split()[1]}.csv"
        csv.write_csv(whole.filter(picked), part)
        evaluation = evaluate(f"{table}/*.parquet", load_truth(str(part)))
        rows.append((name, count(evaluation.n_matched), evaluation.top1, evaluation.topk))
        part.unlink()
    return rows
