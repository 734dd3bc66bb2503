"""The command's root, its groups, and the arguments that several commands share."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Group(TyperGroup):
    """A group of commands, whose only option is `--help`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        # For an option that is not given, typer imports pydantic, which `zsic VERB --help` does without.
        self.add_help_option = not args or args[0].startswith("-")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="zsic",
    cls=_Group,
    help="Zero-shot image classification as a batch job: images and labels in, a Parquet table out.",
    epilog="Exit codes: 0 whole or nothing to do, 1 verify found a difference, 2 bad usage, 3 not whole but "
    "resumable, 4 another job's output, 5 the output's store falls short.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
labels_app = typer.Typer(cls=_Group, help="Look at labels before they cost anything.", no_args_is_help=True)
model_app = typer.Typer(cls=_Group, help="Fetch checkpoints.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")
app.add_typer(model_app, name="model")

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
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Column of the truth's table with the labels.", show_default="label"),
]
LabelSet = Annotated[str | None, typer.Option("--set", help="Of several label sets, the one that is meant.")]
Anonymous = Annotated[bool, typer.Option("--s3-anonymous", help="Read public buckets without credentials.")]
AllowScheme = Annotated[
    list[str] | None,
    typer.Option("--allow-scheme", help="URL scheme the images may have; default file and s3; repeatable."),
]


def set_fields(entries: dict[str, Any]) -> dict[str, Any]:
    """The fields that the user set."""
    return {name: value for name, value in entries.items() if value is not None}


def store_fields(s3_endpoint_url: str | None, s3_anonymous: bool, allow_schemes: list[str] | None) -> dict[str, Any]:
    """The fields of `store`, for commands that read images once more."""
    return set_fields(
        {
            "s3_endpoint_url": s3_endpoint_url,
            "s3_anonymous": s3_anonymous,
            "allow_schemes": tuple(allow_schemes) if allow_schemes else None,
        }
    )
