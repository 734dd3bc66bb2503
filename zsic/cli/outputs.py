"""What is done with an output: `verify`, `evaluate`, `export`, `search`, `report`."""

from pathlib import Path
from typing import Annotated

import typer

from zsic.cli.app import AllowScheme, Anonymous, Endpoint, LabelColumn, LabelSet, Output, Template, app, store_fields


@app.command("verify")
def _verify(
    output: Annotated[str, typer.Argument(help="Folder or s3:// prefix that `classify` wrote.")],
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Recount an output against its snapshots; exit 1 and the differences if it is not whole."""
    from zsic.console.inspect import verify

    verify(output, s3_endpoint_url)


@app.command("evaluate")
def _evaluate(
    output: Annotated[str, typer.Argument(help="Folder or s3:// prefix that `classify` wrote.")],
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            help="CSV, Parquet or JSONL with label and uri, key or id; or: folder, the folder of each image; or: "
            "column:NAME, a column of the output. Several labels an image are a list, in CSV with ; between them.",
            show_default=False,
        ),
    ] = None,
    label_column: LabelColumn = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Another output to compare with: what changed, what was gained and lost, how far they drifted.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="The label set, for synonyms in the truth, or if it has more than 1,000 labels; as for classify.",
            show_default=False,
        ),
    ] = None,
    set_name: Annotated[
        str | None,
        typer.Option("--set", help="Of several label sets, the one to look at.", show_default=False),
    ] = None,
    against_set: Annotated[
        str | None,
        typer.Option("--against-set", help="The same for the other output; default as --set.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    parquet: Annotated[
        str | None,
        typer.Option(
            "--parquet",
            help="Write every figure to this file: metric, label, value, low, high, n.",
            show_default=False,
        ),
    ] = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Compare the table with the truth, or with another table, with 95 % intervals.

    Top-1 and top-K, recall, precision and F1 by label and on average, confused labels, calibration of the scores,
    accuracy against coverage; with --against which answers changed, McNemar's test, and drift.
    """
    from zsic.console.evaluation import evaluate

    evaluate(
        output,
        truth,
        s3_endpoint_url,
        label_column=label_column,
        against=against,
        labels=labels,
        set_name=set_name,
        against_set_name=against_set,
        parquet=parquet,
        as_json=json,
    )


@app.command("export")
def _export(
    output: Output,
    target: Annotated[str, typer.Option("--output", help="Folder or s3:// prefix to write to.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="imagefolder: OUTPUT/<label>/<name>; or webdataset: tar shards with .cls and .json members.",
            show_default=False,
        ),
    ],
    set_name: LabelSet = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Least score of the label, 0 to 1.")] = None,
    min_margin: Annotated[
        float | None, typer.Option("--min-margin", help="Least difference between the best score and the second.")
    ] = None,
    labels_only: Annotated[
        str | None, typer.Option("--labels-only", help="Only these labels, between commas: cat,dog.")
    ] = None,
    per_label: Annotated[
        int | None, typer.Option("--per-label", help="At most so many images of a label, those with the best scores.")
    ] = None,
    shard_mb: Annotated[int, typer.Option("--shard-mb", help="Largest shard of a webdataset, in MB.")] = 512,
    s3_endpoint_url: Endpoint = None,
    s3_anonymous: Anonymous = False,
    allow_scheme: AllowScheme = None,
) -> None:
    """Copy the classified images out, by label, to train another model with.

    Bytes are copied as they are.  Run the same command again to go on after a stop, or to try again what could not be
    read: exit 3 says that there is some.  A folder holds one export of one state of the output.
    """
    from zsic.console.export import export

    selection = {
        "set_name": set_name,
        "min_score": min_score,
        "min_margin": min_margin,
        "labels": tuple(name for part in (labels_only or "").split(",") if (name := part.strip())),
        "per_label": per_label,
    }
    export(output, target, form, selection, shard_mb, store_fields(s3_endpoint_url, s3_anonymous, allow_scheme))


@app.command("search")
def _search(
    output: Output,
    text: Annotated[list[str] | None, typer.Argument(help="What to look for; several are ranked each.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="A picture to look for others like it; repeatable.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Where the model is, if not where the output says.")
    ] = None,
    template: Template = None,
    top: Annotated[int, typer.Option("--top", help="Images to show.")] = 20,
    set_name: LabelSet = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", help="Write a page with thumbnails, one self-contained HTML file.")
    ] = None,
    s3_endpoint_url: Endpoint = None,
    s3_anonymous: Anonymous = False,
    allow_scheme: AllowScheme = None,
) -> None:
    """Find the images that are most like a text or a picture, in an output made with --embeddings.

    Every embedding is compared, by the model that made it; no image is read, but for --gallery.
    """
    from zsic.console.search import search

    given = {
        "output": output,
        "texts": tuple(text or ()),
        "pictures": tuple(image or ()),
        "model": model,
        "templates": tuple(template or ()),
        "top": top,
        "set_name": set_name,
    }
    search(given, store_fields(s3_endpoint_url, s3_anonymous, allow_scheme), as_json=json, gallery=gallery)


@app.command("report")
def _report(
    output: Output,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page to write: report.html.", show_default=False)
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", help="What the images show, as `evaluate` takes it; adds quality.", show_default=False),
    ] = None,
    label_column: LabelColumn = None,
    set_name: LabelSet = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, max=5000, help="Most pictures in the page; default 400.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="With --truth: heat maps of mistakes, by the output's own model.")
    ] = False,
    text: Annotated[bool, typer.Option("--text", help="Print outcomes, labels and sample rows instead.")] = False,
    s3_endpoint_url: Endpoint = None,
    s3_anonymous: Anonymous = False,
    allow_scheme: AllowScheme = None,
) -> None:
    """Write one HTML file about an output, to look through and to pass on; it needs no server and no network.

    Numbers of the run, shares of the labels, how scores are spread, pictures of each label (surest, least sure,
    random), failures; with --truth the quality, confused labels, calibration and the mistakes.  Pictures are read
    again from where they came from, for a minute at most.
    """
    from zsic.console.report import report

    report(
        output,
        target,
        truth=truth,
        label_column=label_column,
        set_name=set_name,
        n_images=images,
        as_text=text,
        explain=explain,
        sources=store_fields(s3_endpoint_url, s3_anonymous, allow_scheme),
    )
