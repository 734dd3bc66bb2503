"""The flags that are fields of the spec: of `classify`, and of what previews it.  Imports nothing heavy."""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, and the field that it sets."""

    name: str
    field: str
    kind: Any
    """As it is given: str, int, float, bool (with a `--no-` beside it), or list[str], where the flag is repeatable."""
    help: str

    @property
    def argument(self) -> str:
        """Its name as an argument of a function."""
        return self.name.removeprefix("--").replace("-", "_")

    def to_parameter(self, panel: str) -> inspect.Parameter:
        """The flag as typer reads it; the field is shown in the help, so that YAML and flags map one to one."""
        name = f"{self.name}/--no-{self.name.removeprefix('--')}" if self.kind is bool else self.name
        help = f"{self.help} (spec: {self.field})"
        option = typer.Option(name, help=help, rich_help_panel=panel, show_default=False)
        kind = Annotated[self.kind | None, option]  # type: ignore[name-defined]  # only known as it runs
        return inspect.Parameter(self.argument, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


FLAGS: dict[str, tuple[Flag, ...]] = {
    "Model and labels": (
        Flag(
            "--labels",
            "labels",
            list[str],
            "cat,dog,bird or a .txt, .csv, .json or .yaml file; repeated, as NAME=..., each set answers in columns of "
            "its own.",
        ),
        Flag(
            "--head",
            "labels.head",
            list[str],
            "Compiled labels (`zsic labels compile`), in place of --labels or beside it.",
        ),
        Flag("--model", "model.name", str, "Hub id, local folder, or demo (the default)."),
        Flag("--revision", "model.revision", str, "Commit, tag or branch on the hub."),
        Flag("--dtype", "model.dtype", str, "auto, float32, bfloat16 or float16."),
        Flag(
            "--quantize",
            "model.quantize",
            str,
            "int8: about twice as fast on CPUs; some answers change, how many is measured first.",
        ),
        Flag(
            "--template",
            "labels.templates",
            list[str],
            "Sentence with {} for the label, or simple (the default), imagenet7, imagenet80, none; repeatable.",
        ),
        Flag("--top-k", "scoring.top_k", int, "Predictions an image; default 5."),
    ),
    "Output": (
        Flag("--output", "output.uri", str, "Folder or s3:// prefix of the table."),
        Flag("--embeddings", "output.embeddings", bool, "Add a column with the image embeddings."),
        Flag("--rows-per-part", "output.rows_per_part", int, "Rows of a Parquet part; default about a minute's."),
        Flag("--publish", "output.publish", str, "delta: the folder is a Delta table, too, from this run on."),
    ),
    "Source": (
        Flag("--format", "source.format", str, "auto, images, tar, parquet, manifest, delta, video or output."),
        Flag("--image-column", "source.image_column", str, "Parquet column of images; default the only one."),
        Flag("--uri-column", "source.uri_column", str, "Manifest column of URLs; default uri."),
        Flag("--fps", "source.fps", float, "Frames a second to take of videos; without it they are no sources."),
        Flag("--keep-column", "source.keep_columns", list[str], "Column to copy to the output; repeatable."),
    ),
    "Decoding": (
        Flag(
            "--decode-mode",
            "decode.mode",
            str,
            "exact (the default: transformers' pixels up to rounding), pil (to the bit), or fast (large JPEGs are "
            "decoded to a fraction of their size: half a grey level off).",
        ),
        Flag("--exif-orientation", "decode.exif_orientation", bool, "Turn pictures as their EXIF says; the default."),
        Flag("--max-bytes", "decode.max_bytes", int, "Larger images become rows; default 64 MiB."),
        Flag("--max-pixels", "decode.max_pixels", int, "Larger images become rows; default 50,000,000."),
    ),
    "Object store": (
        Flag("--s3-endpoint-url", "store.s3_endpoint_url", str, "URL of an S3-compatible server."),
        Flag("--s3-anonymous", "store.s3_anonymous", bool, "Read public buckets without credentials."),
        Flag("--store-timeout", "store.timeout_s", float, "Seconds a store may be silent; default 30."),
        Flag("--store-attempts", "store.attempts", int, "Tries of one read; default 8."),
        Flag(
            "--allow-scheme",
            "store.allow_schemes",
            list[str],
            "URL scheme sources may use; default file and s3; repeatable.",
        ),
        Flag(
            "--remote-manifests-name-files",
            "store.remote_manifests_name_files",
            bool,
            "Let a manifest in an object store name files of the machines that read; by default it may not.",
        ),
    ),
    "What the output holds already": (
        Flag("--prune", "update.prune", bool, "Drop rows of objects that are gone."),
        Flag(
            "--retry-failed",
            "update.retry_failed",
            bool,
            "Take up again all rows that failed, not only the unreachable.",
        ),
    ),
    "Execution (decides no answer)": (
        Flag(
            "--engine",
            "execution.engine",
            str,
            "ray, local (this process, without Ray) or auto (the default): local for less than a minute of work.",
        ),
        Flag(
            "--address",
            "execution.address",
            str,
            "A Ray cluster (auto, ray://...); default: Ray on this machine.",
        ),
        Flag("--num-cpus", "execution.num_cpus", int, "CPUs to use of this machine; default all."),
        Flag("--num-gpus", "execution.num_gpus", float, "GPUs of one encoder; default 0, on CPUs."),
        Flag("--device", "execution.device", str, "cuda or cpu; default cuda with --num-gpus."),
        Flag("--encoders", "execution.encoders", int, "Encoder actors."),
        Flag("--max-encoders", "execution.max_encoders", int, "Encoders that there may be on a cluster that grows."),
        Flag(
            "--wait-for-nodes",
            "execution.wait_for_nodes_s",
            float,
            "Seconds to wait for nodes that an autoscaler is asked for; default 0.",
        ),
        Flag("--encoder-threads", "execution.encoder_threads", int, "Torch threads of a CPU encoder."),
        Flag("--batch-size", "execution.batch_size", int, "Images a forward pass."),
        Flag("--decode-cpus", "execution.decode_cpus", float, "CPUs of one decode task."),
        Flag("--decode-tasks", "execution.decode_tasks", int, "Most decode tasks at once."),
        Flag(
            "--decode-timeout-s",
            "execution.decode_timeout_s",
            float,
            "Seconds one image may take to decode before it becomes a row; default 60.",
        ),
        Flag("--block-rows", "execution.block_rows", int, "Images that travel together."),
        Flag(
            "--max-failures",
            "execution.max_failures",
            str,
            "Stop, resumable, when more images fail: 200, or 5% of them; default 50%.",
        ),
        Flag(
            "--min-agreement",
            "execution.min_agreement",
            float,
            "Share of images whose best label --quantize must not change; default 0.95.",
        ),
        Flag(
            "--no-progress-timeout",
            "execution.no_progress_timeout_s",
            float,
            "Seconds without a finished image before the run stops, resumable; default 600.",
        ),
    ),
}
"""By the panel of the help that they stand in."""


OF_RELABELLING = frozenset(
    (
        *("--labels", "--head", "--template", "--top-k", "--model", "--revision"),
        *("--output", "--embeddings", "--rows-per-part", "--publish"),
        *("--s3-endpoint-url", "--s3-anonymous", "--store-timeout", "--store-attempts"),
        *("--engine", "--address", "--num-cpus", "--decode-cpus", "--decode-tasks", "--no-progress-timeout"),
    )
)
"""The flags of a job that reads no image."""


def to_parameters(names: Collection[str] | None = None) -> Iterator[inspect.Parameter]:
    """The flags of these names, or all of them, for the signature of a command."""
    for panel, flags in FLAGS.items():
        for flag in flags:
            if names is None or flag.name in names:
                yield flag.to_parameter(panel)


def to_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that were set, by group, of all the arguments of a command; `None` is not set."""
    fields: dict[str, Any] = {}
    for flag in (flag for flags in FLAGS.values() for flag in flags):
        value = given.get(flag.argument)
        group, _, field = flag.field.partition(".")
        if value is not None and group != "labels":
            fields.setdefault(group, {})[field] = value
    if sets := _to_label_sets(given):
        fields["labels"] = sets[0] if len(sets) == 1 else sets
    return fields


def _to_label_sets(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The label sets, in the order in which they are given; the templates are for all that are not compiled."""
    labels, heads, templates = given["labels"] or (), given["head"] or (), given["template"]
    if not labels and not heads and not templates:
        return []
    from zsic.core.errors import SpecError
    from zsic.core.spec import parse_label_sets, parse_labels, parse_named

    sets = [parse_named(text, parse_labels) for text in labels] if heads else [*parse_label_sets(labels)]
    sets += [parse_named(text, lambda path: {"head": path}) for text in heads]
    if templates and all("head" in each for each in sets):
        raise SpecError("--template is for --labels, and heads have their prompts already; compile them again with it")
    return [{**each, "templates": templates} if templates and "head" not in each else each for each in sets]
