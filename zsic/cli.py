"""The command line: arguments only.  What a command does is elsewhere; how it looks is in `zsic.console`."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zsic.core.errors import IncompleteError, SpecError, ZsicError
from zsic.flags import OF_RELABELLING, to_fields, to_parameters

if TYPE_CHECKING:
    from zsic.core.spec import JobSpec

app = typer.Typer(
    name="zsic",
    help="Zero-shot image classification as a batch job: images and labels in, a Parquet table out.",
    epilog="Exit codes: 0 whole or nothing to do, 1 verify found a difference, 2 bad usage, 3 not whole but "
    "resumable, 4 another job's output, 5 the output's store falls short.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
labels_app = typer.Typer(help="Look at labels before they cost anything.", no_args_is_help=True)
model_app = typer.Typer(help="Fetch checkpoints.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")
app.add_typer(model_app, name="model")

_OF_PREDICTION = "Prediction"

Source = Annotated[
    list[str],
    typer.Argument(
        help="Folder, glob, prefix, .tar shards (brace ranges too), Parquet with images, or a manifest "
        "(Parquet, CSV, JSONL with a uri column); local, s3:// or any fsspec URL.",
        show_default=False,
    ),
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        help="Sentence with {} for the label, or simple, imagenet7, imagenet80, none; repeatable.",
    ),
]
Labels = Annotated[str, typer.Option("--labels", help="cat,dog,bird or a .txt, .csv, .json or .yaml file.")]
Model = Annotated[str, typer.Option("--model", help="Hub id, local folder, or demo, the bundled miniature.")]
Endpoint = Annotated[str | None, typer.Option("--s3-endpoint-url", help="URL of an S3-compatible server.")]
Output = Annotated[
    str, typer.Argument(help="Folder or s3:// prefix that `classify` wrote.", metavar="OUT", show_default=False)
]
LabelSet = Annotated[str | None, typer.Option("--set", help="Of several label sets, the one that is meant.")]
Anonymous = Annotated[bool, typer.Option("--s3-anonymous", help="Read public buckets without credentials.")]
AllowScheme = Annotated[
    list[str] | None,
    typer.Option("--allow-scheme", help="URL scheme the images may have; default file and s3; repeatable."),
]


def _job_command(
    name: str, act: Callable[..., None], doc: str, *, source: Any = Source, flags: Collection[str] | None = None
) -> None:
    """Register a command that takes fields of the spec as flags, all or some, and hands the given ones to `act`.

    What `act` takes by name only are flags of this command alone.
    """
    kind = source
    own = [each for each in inspect.signature(act).parameters.values() if each.kind is each.KEYWORD_ONLY]

    def command(source: Any, **given: Any) -> None:
        fields = to_fields(given)
        fields["source"] = {"uris": source, **fields.get("source", {})}
        act(fields, **{each.name: given[each.name] for each in own})

    positional = inspect.signature(command).parameters["source"].replace(annotation=kind)
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [positional, *to_parameters(flags), *own]
    )
    app.command(name, help=doc)(command)


def _given(entries: dict[str, Any]) -> dict[str, Any]:
    """The fields that the user set."""
    return {name: value for name, value in entries.items() if value is not None}


def _classify(fields: dict[str, Any]) -> None:
    from zsic import console
    from zsic.core.spec import make_spec

    _require(fields, "labels", "--labels")
    _require(fields, "output", "--output")
    console.run_job(make_spec(fields))


def _relabel(fields: dict[str, Any]) -> None:
    from zsic import console

    _require(fields, "labels", "--labels")
    _require(fields, "output", "--output")
    fields["source"]["format"] = "output"
    console.relabel(fields)


def _plan(
    fields: dict[str, Any],
    *,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            min=1,
            help="Measure this many images from all over the source, and predict from them.",
            rich_help_panel=_OF_PREDICTION,
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="For a cluster that is not there: 10x16cpu, or 4x16cpu1gpu64gb,8x32cpu.",
            rich_help_panel=_OF_PREDICTION,
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price",
            min=0,
            help="Of the whole cluster, an hour; in any currency.",
            rich_help_panel=_OF_PREDICTION,
            show_default=False,
        ),
    ] = None,
) -> None:
    from zsic import console
    from zsic.core.spec import load_spec, make_spec

    uris = fields["source"]["uris"]
    if len(uris) == 1 and uris[0].lower().endswith((".yaml", ".yml")):
        if len(fields) > 1:
            raise SpecError("a spec file stands alone: put the other flags into it")
        spec = load_spec(uris[0])
    else:
        _require(fields, "labels", "--labels")
        _require(fields, "output", "--output")
        spec = make_spec(fields)
    console.show_plan(spec, n_sampled=sample, cluster=cluster, price_per_hour=price)


def _store(s3_endpoint_url: str | None, s3_anonymous: bool, allow_schemes: list[str] | None) -> dict[str, Any]:
    """The fields of `store`, for commands that read images once more."""
    return _given(
        {
            "s3_endpoint_url": s3_endpoint_url,
            "s3_anonymous": s3_anonymous,
            "allow_schemes": tuple(allow_schemes) if allow_schemes else None,
        }
    )


def _require(fields: dict[str, Any], group: str, flag: str) -> None:
    if not fields.get(group) or (group == "output" and "uri" not in fields[group]):
        raise SpecError(f"{flag} is missing; see `zsic classify --help`")


_job_command(
    "classify",
    _classify,
    "Classify images into a Parquet table.  Run the same command again to resume, or to take up new images.",
)
_job_command(
    "relabel",
    _relabel,
    "Give the rows of an output other labels, from its embeddings, with the model that made them: no image is read.  "
    "Run the same command again to resume, or to follow an output that has changed.",
    source=Annotated[str, typer.Argument(metavar="OUT", help="Output of `classify --embeddings`.", show_default=False)],
    flags=OF_RELABELLING,
)
_job_command("plan", _plan, "Show what `classify` (or a spec file) would do, on what, and how long; writes nothing.")


SpecFile = Annotated[Path, typer.Argument(help="YAML file; its fields are shown by `zsic classify --help`.")]
Prune = Annotated[bool, typer.Option("--prune", help="This time, drop rows of objects that are gone.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="This time, take up again all rows that failed.")]
MaxFailures = Annotated[
    str | None, typer.Option("--max-failures", help="In place of the file's execution.max_failures.")
]


@app.command("run")
def _run(
    spec: SpecFile,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to run on, in place of the file's execution.address.")
    ] = None,
    prune: Prune = False,
    retry_failed: RetryFailed = False,
    max_failures: MaxFailures = None,
) -> None:
    """Run the job of a spec file: `classify` with every flag as a field."""
    from zsic import console

    console.run_job(_load_changed(spec, prune, retry_failed, max_failures, address))


@app.command("submit")
def _submit(
    spec: SpecFile,
    address: Annotated[
        str,
        typer.Option("--address", help="The dashboard of the cluster's head, http://HEAD:8265.", show_default=False),
    ],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Submit nothing; show the log of this output's job.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Submit nothing; stop this output's job.")] = False,
    prune: Prune = False,
    retry_failed: RetryFailed = False,
    max_failures: MaxFailures = None,
) -> None:
    """Run the job of a spec file on a Ray cluster that need not know this machine: `run`, over there.

    The spec, its labels and zsic itself are sent along; images, model and output are where all machines of the
    cluster reach them.  The job's log is shown here and its exit code returned; Ctrl-C ends the showing, not the job.
    """
    from zsic import console

    if no_wait + follow + stop > 1:
        raise SpecError("--no-wait, --follow and --stop exclude one another")
    made = _load_changed(spec, prune, retry_failed, max_failures)
    if stop:
        console.stop(made, address)
    else:
        code = console.follow(made, address) if follow else console.submit(made, address, wait=not no_wait)
        raise typer.Exit(code)


def _load_changed(
    spec: Path, prune: bool, retry_failed: bool, max_failures: str | None, address: str | None = None
) -> "JobSpec":
    """A spec file with what this one run has of its own."""
    from zsic.core.spec import change_spec, load_spec

    return change_spec(
        load_spec(spec),
        {
            "execution": _given({"address": address, "max_failures": max_failures}),
            "update": _given({"prune": prune or None, "retry_failed": retry_failed or None}),
        },
    )


@app.command("predict")
def _predict(
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Labels,
    model: Model = "demo",
    template: Template = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Predictions an image; default 5.")] = None,
    decode_mode: Annotated[str, typer.Option("--decode-mode", help="exact, pil or fast.")] = "exact",
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON shaped as transformers' pipeline returns it.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            help="Write the picture with a heat map of what speaks for its best label: a .png, or a folder for "
            "several images.",
            show_default=False,
        ),
    ] = None,
    explain_label: Annotated[
        str | None, typer.Option("--explain-label", help="With --explain: this label.", show_default=False)
    ] = None,
) -> None:
    """Classify a few images here and now, without Ray or an output."""
    from zsic import console

    if explain_label is not None and explain is None:
        raise SpecError("--explain-label needs --explain, which says where the picture goes")
    templates = tuple(template or ())
    console.predict(image, labels, model, templates, top_k, decode_mode, as_json=json)
    if explain is not None:
        console.explain(image, labels, model, templates, decode_mode, explain, explain_label)


@app.command("verify")
def _verify(
    output: Annotated[str, typer.Argument(help="Folder or s3:// prefix that `classify` wrote.")],
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Recount an output against its snapshots; exit 1 and the differences if it is not whole."""
    from zsic import console

    console.verify(output, s3_endpoint_url)


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
    from zsic import console

    console.evaluate(
        output,
        truth,
        s3_endpoint_url,
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
    from zsic import console

    selection = {
        "set_name": set_name,
        "min_score": min_score,
        "min_margin": min_margin,
        "labels": tuple(name for part in (labels_only or "").split(",") if (name := part.strip())),
        "per_label": per_label,
    }
    console.export(output, target, form, selection, shard_mb, _store(s3_endpoint_url, s3_anonymous, allow_scheme))


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
    from zsic import console

    given = {
        "output": output,
        "texts": tuple(text or ()),
        "pictures": tuple(image or ()),
        "model": model,
        "templates": tuple(template or ()),
        "top": top,
        "set_name": set_name,
    }
    console.search(given, _store(s3_endpoint_url, s3_anonymous, allow_scheme), as_json=json, gallery=gallery)


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
    set_name: LabelSet = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, max=5000, help="Most pictures in the page; default 400.")
    ] = None,
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
    from zsic import console

    console.report(
        output,
        target,
        truth=truth,
        set_name=set_name,
        n_images=images,
        as_text=text,
        sources=_store(s3_endpoint_url, s3_anonymous, allow_scheme),
    )


@app.command("demo")
def _demo(
    folder: Annotated[Path, typer.Option("--output", help="Folder for pictures and table.")] = Path("zsic-demo"),
    images: Annotated[int, typer.Option("--images", min=10, help="Pictures to draw.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing.")] = 0,
) -> None:
    """Draw pictures into tar shards, classify them with the bundled model, evaluate, and write a report."""
    from zsic import console

    console.demo(folder, images, seed)


@labels_app.command("check")
def _labels_check(
    labels: Annotated[str, typer.Argument(help="cat,dog,bird or a .txt, .csv, .json or .yaml file.")],
    model: Model = "demo",
    template: Template = None,
) -> None:
    """Print the prompts as the model gets them, and warn of what will not work."""
    from zsic import console

    console.check_labels(labels, model, tuple(template or ()))


_Compiled = Annotated[Path, typer.Option("--output", "-o", help="Where the head goes: a .safetensors file.")]
_AnyLabels = Annotated[
    str, typer.Argument(help="A head (.safetensors) of `labels compile`; or labels, which are compiled first.")
]
_OtherModel = Annotated[
    str | None, typer.Option("--model", help="To compile labels with; default: what the output was made with.")
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
    weight: Annotated[
        float | None,
        typer.Option("--weight", min=0, help="How far examples move a label; default: what is best by leave-one-out."),
    ] = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Write what labels become for a model, once: for `classify --head` and `relabel --head`."""
    from zsic import console

    console.compile_labels(labels, model, output, tuple(template or ()), examples, truth, weight, s3_endpoint_url)


@labels_app.command("calibrate")
def _labels_calibrate(
    labels: _AnyLabels,
    output: _Compiled,
    on: Annotated[str, typer.Option("--on", help="Output of `classify --embeddings` with rows whose label is known.")],
    truth: Annotated[
        str, typer.Option("--truth", help="CSV, Parquet or JSONL with label and uri, key or id; column:NAME; folder.")
    ],
    false_reject: Annotated[
        float | None,
        typer.Option(
            "--false-reject",
            min=0,
            max=1,
            help="Also find a threshold below which an image has no label, that loses this share of right answers.",
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="What the threshold is of: score, similarity or margin.")] = "score",
    model: _OtherModel = None,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Make scores as often right as they say (a temperature; for sigmoid models a shift, too)."""
    from zsic import console

    if by not in ("score", "similarity", "margin"):
        raise SpecError(f"--by: {by!r} is not one of score, similarity, margin")
    console.calibrate_labels(labels, output, on, truth, model, false_reject, by, s3_endpoint_url)  # type: ignore[arg-type]


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
    from zsic import console

    console.adjust_labels(labels, output, on, shares, model, s3_endpoint_url)


@labels_app.command("schema")
def _labels_schema() -> None:
    """Print the JSON schema of label files, for editors that complete and check them."""
    from zsic import console

    console.show_schema()


@model_app.command("pull")
def _model_pull(
    source: Annotated[str, typer.Argument(help="Hub id, or a local folder to convert.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the checkpoint; local.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch.")] = None,
) -> None:
    """Fetch a checkpoint once, as safetensors, checked to be complete; the folder may live in the lake."""
    from zsic import console

    console.pull_model(source, output, revision)


def main() -> None:
    """Run the command line, and end with its exit code."""
    sys.exit(run_command())


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command, by default that of the command line; errors of ours become a message and an exit code."""
    try:
        # Standalone, typer would turn Ctrl-C into an exit code of its own.
        code = app(arguments, standalone_mode=False)
    except ZsicError as error:
        from zsic.core.terminal import printable

        if os.environ.get("ZSIC_TRACEBACK"):
            _show_traceback(error)
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"zsic: {printable(line)}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("zsic: interrupted", file=sys.stderr)
        return IncompleteError.exit_code
    except BrokenPipeError:
        # Nobody reads on; Python would complain of that when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:  # noqa: BLE001  A wrong flag is of a class that typer keeps to itself.
        from zsic.core.terminal import printable

        if not hasattr(error, "format_message"):
            _show_traceback(error)
            return 1
        # Not its own show(): names of files that begin with a dash come here as they are.
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "zsic"
        print(f"zsic: {printable(error.format_message())}; see `{command} --help`", file=sys.stderr)
        return SpecError.exit_code
    else:
        # Of a command that ended with `typer.Exit`.
        return code if isinstance(code, int) else 0
    return 0


def _show_traceback(error: BaseException) -> None:
    from zsic.core.terminal import printable

    for line in "".join(traceback.format_exception(error)).splitlines():
        print(printable(line), file=sys.stderr)


if __name__ == "__main__":
    main()
