"""Label sets and heads: `labels check`, `compile`, `calibrate`, `adjust`, `schema`."""

from pathlib import Path
from typing import Annotated

import typer

from zsic.cli.app import Endpoint, LabelColumn, Model, Template, labels_app
from zsic.core.errors import SpecError


@labels_app.command("check")
def _labels_check(
    labels: Annotated[str, typer.Argument(help="cat,dog,bird or a .txt, .csv, .json or .yaml file.")],
    model: Model = "demo",
    template: Template = None,
) -> None:
    """Print the prompts as the model gets them, and warn of what will not work."""
    from zsic.console.labels import check_labels

    check_labels(labels, model, tuple(template or ()))


_Compiled = Annotated[Path, typer.Option("--output", "-o", help="Where the head goes: a .safetensors file.")]
_AnyLabels = Annotated[
    str, typer.Argument(help="A head (.safetensors) of `labels compile`; or labels, which are compiled first.")
]
_OtherModel = Annotated[
    str | None,
    typer.Option("--model", help="To compile labels with; default: what the output was made with, else demo."),
]


@labels_app.command("compile")
def _labels_compile(
    labels: Annotated[str, typer.Argument(help="cat,dog,bird or a .txt, .csv, .json or .yaml file.")],
    output: _Compiled,
    model: Model = "demo",
    template: Template = None,
    examples: Annotated[
        str | None,
        typer.Option(
            "--examples",
            help="Pictures to learn from: a folder with a folder for each label; or, with --truth, an output of "
            "`classify --embeddings`.",
        ),
    ] = None,
    truth: Annotated[
        str | None, typer.Option("--truth", help="The labels of that output's rows, as `evaluate` takes them.")
    ] = None,
    label_column: LabelColumn = None,
    weight: Annotated[
        float | None,
        typer.Option("--weight", min=0, help="How far examples move a label; default: what is best by leave-one-out."),
    ] = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Write what labels become for a model, once: for `classify --head` and `relabel --head`."""
    from zsic.console.labels import compile_labels

    compile_labels(
        labels,
        model,
        output,
        templates=tuple(template or ()),
        examples=examples,
        truth=truth,
        label_column=label_column,
        weight=weight,
        s3_endpoint_url=s3_endpoint_url,
    )


@labels_app.command("calibrate")
def _labels_calibrate(
    labels: _AnyLabels,
    output: _Compiled,
    on: Annotated[str, typer.Option("--on", help="Output of `classify --embeddings` with rows whose label is known.")],
    truth: Annotated[
        str,
        typer.Option(
            "--truth",
            help="CSV, Parquet or JSONL with label and uri, key or id; column:NAME; folder.  Lists for mode: multi.",
        ),
    ],
    label_column: LabelColumn = None,
    false_reject: Annotated[
        float | None,
        typer.Option(
            "--false-reject",
            min=0,
            max=1,
            help="Also find a threshold below which an image has no label, that loses this share of right answers.",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option("--precision", min=0, max=1, help="Or one that leaves this share of right ones among answers."),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="What the threshold is of: score, similarity or margin.")] = "score",
    model: _OtherModel = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Make scores as often right as they say (a temperature; a shift, too, where labels are scored each by itself)."""
    from zsic.console.labels import calibrate_labels

    if by not in ("score", "similarity", "margin"):
        raise SpecError(f"--by: {by!r} is not one of score, similarity, margin")
    calibrate_labels(
        labels,
        output,
        on,
        truth,
        label_column=label_column,
        model=model,
        false_reject=false_reject,
        precision=precision,
        by=by,  # type: ignore[arg-type]
        s3_endpoint_url=s3_endpoint_url,
    )


@labels_app.command("adjust")
def _labels_adjust(
    labels: _AnyLabels,
    output: _Compiled,
    on: Annotated[
        str | None,
        typer.Option("--on", help="Estimate how the labels are shared out, from this output's embeddings (by EM)."),
    ] = None,
    shares: Annotated[str | None, typer.Option("--shares", help="State it: cat=0.7,dog=0.3 for all labels.")] = None,
    model: _OtherModel = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Adjust scores to the shares that labels have among the images: rare ones need more to be the answer."""
    from zsic.console.labels import adjust_labels

    adjust_labels(labels, output, on, shares, model, s3_endpoint_url)


@labels_app.command("schema")
def _labels_schema() -> None:
    """Print the JSON schema of label files, for editors that complete and check them."""
    from zsic.console.labels import show_schema

    show_schema()
