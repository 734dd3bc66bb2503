"""The command line: arguments only.  What a command does is elsewhere; how it looks is in `zsic.console`."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zsic.core.errors import IncompleteError, SpecError, ZsicError

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

_OF_STORE = "Object store"
_OF_MODEL = "Model and labels"
_OF_DECODE = "Decoding"
_OF_OUTPUT = "Output"
_OF_UPDATE = "What the output holds already"
_OF_EXECUTION = "Execution (decides no answer)"
_OF_PREDICTION = "Prediction"


def _option(field: str, help: str, panel: str, *names: str) -> Any:
    """A flag that sets one field of the spec; the field is shown in the help, so YAML and flags map one to one."""
    return typer.Option(*names, help=f"{help} (spec: {field})", rich_help_panel=panel, show_default=False)


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


def _job_command(name: str, act: Callable[..., None], doc: str) -> None:
    """Register a command that takes every field of the spec as a flag and hands the given ones to `act`.

    What `act` takes by name only are flags of this command alone.
    """

    def command(
        source: Annotated[
            list[str],
            typer.Argument(
                help="Folder, glob, prefix, .tar shards (brace ranges too), Parquet with images, or a manifest "
                "(Parquet, CSV, JSONL with a uri column); local, s3:// or any fsspec URL.",
                show_default=False,
            ),
        ],
        labels: Annotated[
            str | None,
            _option("labels", "cat,dog,bird or a .txt, .csv, .json or .yaml file.", _OF_MODEL, "--labels"),
        ] = None,
        output: Annotated[
            str | None, _option("output.uri", "Folder or s3:// prefix of the table.", _OF_OUTPUT, "--output")
        ] = None,
        model: Annotated[
            str | None,
            _option("model.name", "Hub id, local folder, or demo (the default).", _OF_MODEL, "--model"),
        ] = None,
        revision: Annotated[
            str | None,
            _option("model.revision", "Commit, tag or branch on the hub.", _OF_MODEL, "--revision"),
        ] = None,
        dtype: Annotated[
            str | None,
            _option("model.dtype", "auto, float32, bfloat16 or float16.", _OF_MODEL, "--dtype"),
        ] = None,
        quantize: Annotated[
            str | None,
            _option(
                "model.quantize",
                "int8: about twice as fast on CPUs; some answers change, how many is measured first.",
                _OF_MODEL,
                "--quantize",
            ),
        ] = None,
        template: Annotated[
            list[str] | None,
            _option(
                "labels.templates",
                "Sentence with {} for the label, or simple (the default), imagenet7, imagenet80, none; repeatable.",
                _OF_MODEL,
                "--template",
            ),
        ] = None,
        top_k: Annotated[
            int | None, _option("scoring.top_k", "Predictions an image; default 5.", _OF_MODEL, "--top-k")
        ] = None,
        format: Annotated[
            str | None,
            _option("source.format", "auto, images, tar, parquet, manifest or delta.", "Source", "--format"),
        ] = None,
        image_column: Annotated[
            str | None,
            _option(
                "source.image_column",
                "Parquet column of images; default the only one.",
                "Source",
                "--image-column",
            ),
        ] = None,
        uri_column: Annotated[
            str | None,
            _option("source.uri_column", "Manifest column of URLs; default uri.", "Source", "--uri-column"),
        ] = None,
        keep_column: Annotated[
            list[str] | None,
            _option("source.keep_columns", "Column to copy to the output; repeatable.", "Source", "--keep-column"),
        ] = None,
        decode_mode: Annotated[
            str | None,
            _option(
                "decode.mode",
                "exact (the default: transformers' pixels up to rounding), pil (to the bit), or fast (large JPEGs are "
                "decoded to a fraction of their size: half a grey level off).",
                _OF_DECODE,
                "--decode-mode",
            ),
        ] = None,
        exif_orientation: Annotated[
            bool | None,
            _option(
                "decode.exif_orientation",
                "Turn pictures as their EXIF says; the default.",
                _OF_DECODE,
                "--exif-orientation/--no-exif-orientation",
            ),
        ] = None,
        max_bytes: Annotated[
            int | None,
            _option("decode.max_bytes", "Larger images become rows; default 64 MiB.", _OF_DECODE, "--max-bytes"),
        ] = None,
        max_pixels: Annotated[
            int | None,
            _option(
                "decode.max_pixels",
                "Larger images become rows; default 50,000,000.",
                _OF_DECODE,
                "--max-pixels",
            ),
        ] = None,
        embeddings: Annotated[
            bool | None,
            _option(
                "output.embeddings",
                "Add a column with the image embeddings.",
                _OF_OUTPUT,
                "--embeddings/--no-embeddings",
            ),
        ] = None,
        rows_per_part: Annotated[
            int | None,
            _option(
                "output.rows_per_part",
                "Rows of a Parquet part; default about a minute's.",
                _OF_OUTPUT,
                "--rows-per-part",
            ),
        ] = None,
        publish: Annotated[
            str | None,
            _option(
                "output.publish",
                "delta: the folder is a Delta table, too, from this run on.",
                _OF_OUTPUT,
                "--publish",
            ),
        ] = None,
        s3_endpoint_url: Annotated[
            str | None,
            _option("store.s3_endpoint_url", "URL of an S3-compatible server.", _OF_STORE, "--s3-endpoint-url"),
        ] = None,
        s3_anonymous: Annotated[
            bool | None,
            _option(
                "store.s3_anonymous",
                "Read public buckets without credentials.",
                _OF_STORE,
                "--s3-anonymous/--no-s3-anonymous",
            ),
        ] = None,
        store_timeout: Annotated[
            float | None,
            _option("store.timeout_s", "Seconds a store may be silent; default 30.", _OF_STORE, "--store-timeout"),
        ] = None,
        store_attempts: Annotated[
            int | None,
            _option("store.attempts", "Tries of one read; default 8.", _OF_STORE, "--store-attempts"),
        ] = None,
        allow_scheme: Annotated[
            list[str] | None,
            _option(
                "store.allow_schemes",
                "URL scheme sources may use; default file and s3; repeatable.",
                _OF_STORE,
                "--allow-scheme",
            ),
        ] = None,
        remote_manifests_name_files: Annotated[
            bool | None,
            _option(
                "store.remote_manifests_name_files",
                "Let a manifest in an object store name files of the machines that read; by default it may not.",
                _OF_STORE,
                "--remote-manifests-name-files/--no-remote-manifests-name-files",
            ),
        ] = None,
        prune: Annotated[
            bool | None,
            _option("update.prune", "Drop rows of objects that are gone.", _OF_UPDATE, "--prune/--no-prune"),
        ] = None,
        retry_failed: Annotated[
            bool | None,
            _option(
                "update.retry_failed",
                "Take up again all rows that failed, not only the unreachable.",
                _OF_UPDATE,
                "--retry-failed/--no-retry-failed",
            ),
        ] = None,
        address: Annotated[
            str | None,
            _option(
                "execution.address",
                "A Ray cluster (auto, ray://...); default: Ray on this machine.",
                _OF_EXECUTION,
                "--address",
            ),
        ] = None,
        num_cpus: Annotated[
            int | None,
            _option("execution.num_cpus", "CPUs of a Ray started here.", _OF_EXECUTION, "--num-cpus"),
        ] = None,
        num_gpus: Annotated[
            float | None,
            _option("execution.num_gpus", "GPUs of one encoder; default 0, on CPUs.", _OF_EXECUTION, "--num-gpus"),
        ] = None,
        device: Annotated[
            str | None,
            _option("execution.device", "cuda or cpu; default cuda with --num-gpus.", _OF_EXECUTION, "--device"),
        ] = None,
        encoders: Annotated[
            int | None, _option("execution.encoders", "Encoder actors.", _OF_EXECUTION, "--encoders")
        ] = None,
        max_encoders: Annotated[
            int | None,
            _option(
                "execution.max_encoders",
                "Encoders that there may be on a cluster that grows.",
                _OF_EXECUTION,
                "--max-encoders",
            ),
        ] = None,
        wait_for_nodes: Annotated[
            float | None,
            _option(
                "execution.wait_for_nodes_s",
                "Seconds to wait for nodes that an autoscaler is asked for; default 0.",
                _OF_EXECUTION,
                "--wait-for-nodes",
            ),
        ] = None,
        encoder_threads: Annotated[
            int | None,
            _option(
                "execution.encoder_threads",
                "Torch threads of a CPU encoder.",
                _OF_EXECUTION,
                "--encoder-threads",
            ),
        ] = None,
        batch_size: Annotated[
            int | None,
            _option("execution.batch_size", "Images a forward pass.", _OF_EXECUTION, "--batch-size"),
        ] = None,
        decode_cpus: Annotated[
            float | None,
            _option("execution.decode_cpus", "CPUs of one decode task.", _OF_EXECUTION, "--decode-cpus"),
        ] = None,
        decode_tasks: Annotated[
            int | None,
            _option("execution.decode_tasks", "Most decode tasks at once.", _OF_EXECUTION, "--decode-tasks"),
        ] = None,
        decode_timeout: Annotated[
            float | None,
            _option(
                "execution.decode_timeout_s",
                "Seconds one image may take to decode before it becomes a row; default 60.",
                _OF_EXECUTION,
                "--decode-timeout-s",
            ),
        ] = None,
        block_rows: Annotated[
            int | None,
            _option("execution.block_rows", "Images that travel together.", _OF_EXECUTION, "--block-rows"),
        ] = None,
        max_failures: Annotated[
            str | None,
            _option(
                "execution.max_failures",
                "Stop, resumable, when more images fail: 200, or 5% of them; default 50%.",
                _OF_EXECUTION,
                "--max-failures",
            ),
        ] = None,
        min_agreement: Annotated[
            float | None,
            _option(
                "execution.min_agreement",
                "Share of images whose best label --quantize must not change; default 0.95.",
                _OF_EXECUTION,
                "--min-agreement",
            ),
        ] = None,
        no_progress_timeout: Annotated[
            float | None,
            _option(
                "execution.no_progress_timeout_s",
                "Seconds without a finished image before the run stops, resumable; default 600.",
                _OF_EXECUTION,
                "--no-progress-timeout",
            ),
        ] = None,
        **own: Any,
    ) -> None:
        fields: dict[str, dict[str, Any]] = {
            "source": {
                "uris": source,
                "format": format,
                "image_column": image_column,
                "uri_column": uri_column,
                "keep_columns": keep_column,
            },
            "labels": {**_labels_fields(labels), "templates": template},
            "model": {"name": model, "revision": revision, "dtype": dtype, "quantize": quantize},
            "decode": {
                "mode": decode_mode,
                "exif_orientation": exif_orientation,
                "max_bytes": max_bytes,
                "max_pixels": max_pixels,
            },
            "scoring": {"top_k": top_k},
            "output": {
                "uri": output,
                "embeddings": embeddings,
                "rows_per_part": rows_per_part,
                "publish": publish,
            },
            "store": {
                "s3_endpoint_url": s3_endpoint_url,
                "s3_anonymous": s3_anonymous,
                "timeout_s": store_timeout,
                "attempts": store_attempts,
                "allow_schemes": allow_scheme,
                "remote_manifests_name_files": remote_manifests_name_files,
            },
            "update": {"prune": prune, "retry_failed": retry_failed},
            "execution": {
                "address": address,
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "device": device,
                "encoders": encoders,
                "max_encoders": max_encoders,
                "wait_for_nodes_s": wait_for_nodes,
                "encoder_threads": encoder_threads,
                "batch_size": batch_size,
                "decode_cpus": decode_cpus,
                "decode_tasks": decode_tasks,
                "decode_timeout_s": decode_timeout,
                "block_rows": block_rows,
                "max_failures": max_failures,
                "min_agreement": min_agreement,
                "no_progress_timeout_s": no_progress_timeout,
            },
        }
        act({group: _given(entries) for group, entries in fields.items() if _given(entries)}, **own)

    app.command(name, help=doc)(_with_flags(command, act))


def _with_flags(command: Callable[..., None], act: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of its `**own`, the arguments that `act` takes by name only."""
    signature = inspect.signature(command)
    flags = [each for each in inspect.signature(act).parameters.values() if each.kind is each.KEYWORD_ONLY]
    parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*parameters, *flags])  # type: ignore[attr-defined]
    return command


def _labels_fields(labels: str | None) -> dict[str, Any]:
    from zsic.core.spec import parse_labels

    return parse_labels(labels) if labels else {}


def _given(entries: dict[str, Any]) -> dict[str, Any]:
    """The fields that the user set."""
    return {name: value for name, value in entries.items() if value is not None}


def _classify(fields: dict[str, Any]) -> None:
    from zsic import console
    from zsic.core.spec import make_spec

    _require(fields, "labels", "--labels")
    _require(fields, "output", "--output")
    console.run_job(make_spec(fields))


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


def _require(fields: dict[str, Any], group: str, flag: str) -> None:
    if not set(fields.get(group, {})) - {"templates", "embeddings", "rows_per_part", "publish"}:
        raise SpecError(f"{flag} is missing; see `zsic classify --help`")


_job_command(
    "classify",
    _classify,
    "Classify images into a Parquet table.  Run the same command again to resume, or to take up new images.",
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
) -> None:
    """Classify a few images here and now, without Ray or an output."""
    from zsic import console

    console.predict(image, labels, model, tuple(template or ()), top_k, decode_mode, as_json=json)


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
        str, typer.Option("--truth", help="CSV, Parquet or JSONL with label and uri, key or id; or: folder.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    s3_endpoint_url: Endpoint = None,
) -> None:
    """Compare the table with the truth: top-1 and top-K with 95 % intervals, and by label."""
    from zsic import console

    console.evaluate(output, truth, s3_endpoint_url, as_json=json)


@app.command("demo")
def _demo(
    folder: Annotated[Path, typer.Option("--output", help="Folder for pictures and table.")] = Path("zsic-demo"),
    images: Annotated[int, typer.Option("--images", min=10, help="Pictures to draw.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing.")] = 0,
) -> None:
    """Draw pictures into tar shards, classify them with the bundled model, and evaluate."""
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
