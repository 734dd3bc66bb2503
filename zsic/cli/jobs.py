"""Jobs: `classify`, `relabel`, `plan`, `run`, `submit`.  Every field of a spec is a flag, and the other way round."""

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zsic.cli.app import app, set_fields
from zsic.core.errors import SpecError
from zsic.flags import OF_RELABELLING, to_fields, to_parameters

if TYPE_CHECKING:
    from zsic.core.spec import JobSpec

_OF_PREDICTION = "Prediction"

Source = Annotated[
    list[str],
    typer.Argument(
        help="Folder, glob, prefix, .tar shards (brace ranges too), Parquet with images, or a manifest "
        "(Parquet, CSV, JSONL with a uri column); local, s3:// or any fsspec URL.",
        show_default=False,
    ),
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


def _classify(fields: dict[str, Any]) -> None:
    from zsic.console.job import run_job
    from zsic.core.spec import make_spec

    _require(fields, "labels", "--labels")
    _require(fields, "output", "--output")
    run_job(make_spec(fields))


def _relabel(fields: dict[str, Any]) -> None:
    from zsic.console.job import relabel

    _require(fields, "labels", "--labels")
    _require(fields, "output", "--output")
    fields["source"]["format"] = "output"
    relabel(fields)


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
    from zsic.console.job import show_plan
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
    show_plan(spec, n_sampled=sample, cluster=cluster, price_per_hour=price)


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
    from zsic.console.job import run_job

    run_job(_load_changed(spec, prune, retry_failed, max_failures, address))


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
    from zsic.console import submit as console

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
            "execution": set_fields({"address": address, "max_failures": max_failures}),
            "update": set_fields({"prune": prune or None, "retry_failed": retry_failed or None}),
        },
    )
