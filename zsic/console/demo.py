"""`zsic demo`: the whole job on pictures that it draws itself."""

from pathlib import Path

from zsic.console.words import count, err, out, show_table
from zsic.core.spec import JobSpec

IMAGES_PER_SHARD = 500
N_BROKEN = 6


def demo(folder: Path, n_images: int, seed: int) -> None:
    """Draw, classify, evaluate, and show rows of the table."""
    import pyarrow.parquet as pq

    from zsic.console.inspect import evaluate
    from zsic.console.job import run_job
    from zsic.demo.shards import labels, write_shards

    shards, table = folder / "shards", folder / "table"
    truth = shards / "truth.csv"
    if truth.exists():
        err.print(f"pictures are in {shards} already", style="dim")
    else:
        err.print(f"drawing {count(n_images)} pictures into {shards} ...", style="dim")
        write_shards(shards, n_images, seed, images_per_shard=IMAGES_PER_SHARD, n_broken=N_BROKEN)
    names = labels()
    file = folder / "labels.txt"
    file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    out.print(f"$ zsic classify '{shards}/*.tar' --labels {file} --output {table}", style="bold", markup=False)
    run_job(
        JobSpec.model_validate(
            {"source": f"{shards}/*.tar", "labels": str(file), "output": str(table), "model": "demo"}
        )
    )
    parts = sorted(table.glob("*.parquet"))
    columns = ["key", "outcome", "label", "score", "predictions"]
    rows = pq.read_table(parts[0], columns=columns).slice(0, 8).to_pylist()
    out.print()
    out.print(
        f"$ duckdb -c \"select key, outcome, label, score from '{table}/*.parquet' limit 8\"",
        style="bold",
        markup=False,
    )
    show_table(
        ["key", "outcome", "label", "score", "second", "score"],
        [
            (
                row["key"],
                row["outcome"],
                row["label"],
                row["score"],
                *(_second(row["predictions"])),
            )
            for row in rows
        ],
        right=(3, 5),
    )
    out.print()
    out.print(f"$ zsic evaluate {table} --truth {truth}", style="bold", markup=False)
    evaluate(str(table), str(truth), None, as_json=False)
    out.print()
    out.print(
        f"pictures: {shards}   table: {table}/*.parquet   run the command again: nothing is done twice",
        markup=False,
    )


def _second(predictions: list[dict[str, object]] | None) -> tuple[object, object]:
    return (predictions[1]["label"], predictions[1]["score"]) if predictions and len(predictions) > 1 else (None, None)
