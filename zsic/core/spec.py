"""What a job is: the frozen, validated form of a spec file or of `classify`'s flags.

Every rule that needs no I/O is checked here.  Rules that need the labels, the model or the cluster are checked by
those who know them, with the same field names in their messages.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from zsic.core.errors import SpecError
from zsic.core.secrets import ADVICE, holds_credentials


def _as_tuple(value: Any) -> Any:
    """Let a single string stand where a list of strings is meant."""
    return (value,) if isinstance(value, str) else value


T = TypeVar("T")

_SECRET = "credentials"
"""The kind of fault whose value no message repeats."""


def _as_text(value: Any) -> Any:
    """Let a number stand where its text is meant, as YAML reads it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


def _refuse_credentials(value: T) -> T:
    urls = value if isinstance(value, tuple) else (value,)
    if any(isinstance(url, str) and holds_credentials(url) for url in urls):
        raise PydanticCustomError(_SECRET, "a URL holds credentials; {advice}", {"advice": ADVICE})
    return value


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class StoreSpec(_Spec):
    """How object stores are reached.  Credentials are never here: each worker finds its own in its environment."""

    s3_endpoint_url: str | None = None
    """URL of an S3-compatible server; None is AWS."""
    s3_anonymous: bool = False
    """Read public buckets without credentials."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Longest silence of the store before a request is tried again; so is one that brings less than 16 KiB/s."""
    attempts: int = Field(default=8, ge=1)
    """Tries of one read before its image becomes `unreachable`."""
    allow_schemes: Strings = ("file", "s3")
    """URL schemes that sources and the `uri` column of manifests may use."""
    remote_manifests_name_files: bool = False
    """Let a manifest that lies in an object store name files of the machines that read."""

    _no_secret = field_validator("s3_endpoint_url")(_refuse_credentials)


class SourceSpec(_Spec):
    """Where the images are."""

    uris: Strings = Field(min_length=1)
    """Directories, globs, brace ranges, prefixes, `.tar` shards, Parquet files, manifests; any fsspec URL."""
    _no_secret = field_validator("uris")(_refuse_credentials)
    format: Literal["auto", "images", "tar", "parquet", "manifest", "delta", "video", "output"] = "auto"
    """What the objects are.  `auto` goes by the ending: `.tar`; `.parquet` (an image column, else a `uri` column);
    `.csv` and `.jsonl` that are named or globbed are manifests; all else is taken for an image.  A folder with a
    `_delta_log` is a Delta table: the Parquet files that are the table now, and no others.  `output` is an output with
    embeddings: its rows get other labels, and no image is read (`zsic relabel`)."""
    image_column: str | None = None
    """Parquet column with the image bytes or HF's `{bytes, path}`; None finds the only one there is."""
    uri_column: str = "uri"
    """Manifest column with the URL of each image."""
    keep_columns: Strings = ()
    """Columns of Parquet sources and manifests to copy to the output; for tars, `json` copies the `.json` member."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Take videos (`.mp4 .m4v .mov .mkv .webm .avi`) for sources, and of each second so many frames, whatever its own
    rate; below 1, one in several seconds.  Without it videos are no images.  Needs
    `pip install -c constraints.txt '.[video]'`."""

    @field_validator("fps")
    @classmethod
    def _rate_of_videos(cls, fps: float | None, others: ValidationInfo) -> float | None:
        if fps is None and others.data.get("format") == "video":
            raise PydanticCustomError("no_rate", "source.format is video, which needs a rate of frames, such as 1")
        return fps


class LabelsSpec(_Spec):
    """One label set: which labels, in which words."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]+$")
    """What the set is called; where a job has several, it ends the names of the set's columns."""
    path: str | None = None
    """A `.txt`, `.csv`, `.json` or `.yaml` file of labels."""
    names: Strings = ()
    """The labels themselves, instead of a file."""
    head: str | None = None
    """A head that `zsic labels compile` has made, instead of labels; it has its prompts already."""
    templates: Strings = ()
    """Sentences with `{}` for the label, or names of template sets; empty leaves it to the label file, else
    `simple`."""


class ModelSpec(_Spec):
    """Which checkpoint encodes images and labels."""

    name: str = "demo"
    """A hub id, a local folder, or `demo`, the bundled miniature."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the image tower's weights; `auto` is bfloat16 where the device is good at it, else float32."""
    quantize: Literal["int8"] | None = None
    """`int8` is about twice as fast on CPUs and changes some answers: how many is measured on images of the source
    before an output is begun.  Needs `pip install -c constraints.txt '.[int8]'`."""


class DecodeSpec(_Spec):
    """From bytes to the model's pixels.  Decides answers, so all of it is part of the fingerprint."""

    mode: Literal["exact", "pil", "fast"] = "exact"
    """`pil` is transformers' PIL image processor to the bit; `exact` is the same up to rounding, at two to three
    times the speed of `pil` and of transformers.  `fast` is `exact`, but decodes JPEG pictures that are at least four
    times as large as the model's to a fraction of their size: half a grey level off, twice as fast at 12 megapixels."""
    exif_orientation: bool = True
    """Turn the picture as its EXIF says."""
    max_bytes: int = Field(default=64 * 2**20, ge=1)
    """Larger objects are `too_large`."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Larger pictures are `too_many_pixels`, by their header, before anything is decoded."""


class ScoringSpec(_Spec):
    """From similarities to the answer."""

    top_k: int | None = Field(default=None, ge=1)
    """Predictions kept an image; None is 5, or all labels where there are fewer."""


class OutputSpec(_Spec):
    """Where the table goes, and what is in it."""

    uri: str = Field(min_length=1)
    """A local folder or an `s3://` prefix."""
    embeddings: bool = False
    """Add the image embedding to each row."""
    rows_per_part: int | None = Field(default=None, ge=1)
    """Rows of one Parquet part; None is what a minute brings."""
    publish: Literal["delta"] | None = None
    """`delta` makes a Delta table of the folder, which follows every snapshot from then on.  Needs
    `pip install -c constraints.txt '.[delta]'`."""

    @field_validator("publish", mode="before")
    @classmethod
    def _delta_only(cls, publish: Any) -> Any:
        if publish not in (None, "delta"):
            _refuse_credentials(publish)
            raise PydanticCustomError(
                "no_table", "it is `delta`: the table is the folder of the output, where its files have to lie"
            )
        return publish

    @field_validator("uri")
    @classmethod
    def _no_trailing_slash(cls, uri: str) -> str:
        if uri.endswith("://"):
            raise PydanticCustomError("no_bucket", "it names no bucket; write s3://BUCKET/PREFIX")
        return uri.rstrip("/") or "/"

    _no_secret = field_validator("uri")(_refuse_credentials)


class UpdateSpec(_Spec):
    """What a run does about what the output holds already.  New and changed sources are always taken up."""

    prune: bool = False
    """Drop the rows of objects that are gone; only of those that `source` would list if they were there."""
    retry_failed: bool = False
    """Take up again every row that failed, not only those that are `unreachable`."""


Failures = Annotated[str, BeforeValidator(_as_text)]


class ExecutionSpec(_Spec):
    """How it runs.  Decides no answer; recorded, never hashed."""

    engine: Literal["auto", "ray", "local"] = "auto"
    """`ray` runs on a Ray cluster, or on a Ray started here for this job.  `local` runs the same stages in this
    process, without Ray.  `auto` is `local` where the work is estimated to take less than a minute, else `ray`."""
    address: str | None = None
    """Of a Ray cluster (`auto`, `ray://...`, `HOST:PORT`); None starts Ray on this machine, for this job."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of this machine that a run without an address uses; None is all there are."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs reserved by each encoder, a part of one or whole ones; 0 encodes on CPUs."""
    device: Literal["cuda", "cpu"] | None = None
    """Where encoders compute; None is `cuda` with `num_gpus`, else `cpu`.  `cpu` with `num_gpus` tries out how a
    cluster would be used, on GPUs that exist in Ray's books alone."""
    encoders: int | None = Field(default=None, ge=1)
    """Encoder actors; None is what the cluster holds: one a GPU, or one for every eight CPUs."""
    max_encoders: int | None = Field(default=None, ge=1)
    """On a cluster that grows: encoders that there may be in the end, `encoders` being those to begin with.  Decode
    tasks are then as many as the CPUs that have come allow."""
    wait_for_nodes_s: float = Field(default=0.0, ge=0)
    """How long to wait for nodes that an autoscaler is asked for, where the cluster is too small to begin."""
    encoder_threads: int | None = Field(default=None, ge=1)
    """Torch threads of one CPU encoder; None is its share of the node's CPUs."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images in one forward pass; None is chosen from the device."""
    decode_cpus: float | None = Field(default=None, gt=0)
    """CPUs reserved by one decode task; None is chosen from the cluster."""
    decode_tasks: int | None = Field(default=None, ge=1)
    """Most decode tasks at once; None is what the CPUs allow."""
    decode_timeout_s: float = Field(default=60.0, gt=0)
    """Longest decoding of one image; what takes longer becomes `decoder_died`."""
    block_rows: int | None = Field(default=None, ge=1)
    """Images that travel together from decode to encoder; None is chosen from the memory."""
    max_failures: Failures = "50%"
    """A run stops, resumable, when more images fail: a count (`200`), or a share (`5%`) from the thousandth on."""
    min_agreement: float = Field(default=0.95, ge=0, le=1)
    """Share of the images tried whose best label must stay the same with `model.quantize`; else nothing is begun."""
    no_progress_timeout_s: float = Field(default=600.0, gt=0)
    """A run without a finished image for this long stops, resumable, with exit code 3."""

    @property
    def on_device(self) -> str:
        """Where encoders compute, in torch's words."""
        return self.device or ("cuda" if self.num_gpus else "cpu")

    @property
    def needs_ray(self) -> bool:
        """Whether any field is about a cluster, or divides the work among Ray's tasks and actors."""
        fields = (self.address, self.max_encoders, self.decode_cpus, self.decode_tasks)
        return any(each is not None for each in fields) or (self.encoders or 1) > 1 or self.num_gpus > 1

    @model_validator(mode="after")
    def _local_is_one_process(self) -> Self:
        if self.engine == "local" and self.needs_ray:
            names = ("address", "encoders", "max_encoders", "decode_cpus", "decode_tasks", "num_gpus")
            given = ", ".join(f"execution.{name}" for name in names if getattr(self, name))
            raise PydanticCustomError(
                "local", "execution.engine is local, and {given} need Ray; leave one of them out", {"given": given}
            )
        return self

    @field_validator("max_encoders")
    @classmethod
    def _not_fewer(cls, max_encoders: int | None, others: ValidationInfo) -> int | None:
        encoders = others.data.get("encoders") or 1
        if max_encoders is not None and max_encoders < encoders:
            raise PydanticCustomError("too_few", "execution.encoders is {encoders} already", {"encoders": encoders})
        return max_encoders

    @field_validator("max_failures")
    @classmethod
    def _count_or_share(cls, text: str) -> str:
        number = text.removesuffix("%")
        is_share = number != text
        try:
            good = 0 <= float(number) <= (100 if is_share else float("inf")) and (is_share or number.isdigit())
        except ValueError:
            good = False
        if not good:
            raise PydanticCustomError("bad_limit", "it is a share of the images (5%) or a count of them (200)")
        return text

    @field_validator("num_gpus")
    @classmethod
    def _whole_gpus(cls, num_gpus: float) -> float:
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise PydanticCustomError("broken_gpus", "more than one GPU must be whole ones; use 1, 2 ...")
        return num_gpus


class JobSpec(_Spec):
    """The whole job; `zsic run SPEC.yaml` reads one.

    `source`, `labels`, `model` and `output` may be given short, as a string (or a list, for `source` and
    `labels`).  `labels` may be a list of several label sets, each a mapping.
    """

    source: SourceSpec
    labels: tuple[LabelsSpec, ...] = Field(min_length=1)
    output: OutputSpec
    model: ModelSpec = ModelSpec()
    decode: DecodeSpec = DecodeSpec()
    scoring: ScoringSpec = ScoringSpec()
    update: UpdateSpec = UpdateSpec()
    store: StoreSpec = StoreSpec()
    execution: ExecutionSpec = ExecutionSpec()

    @field_validator("model", "decode", "scoring", "update", "store", "execution", mode="before")
    @classmethod
    def _nothing_below(cls, value: Any) -> Any:
        return {} if value is None else value  # as YAML reads a group of which no field is left

    @field_validator("source", mode="before")
    @classmethod
    def _short_source(cls, value: Any) -> Any:
        return {"uris": value} if isinstance(value, str | list | tuple) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _short_labels(cls, value: Any) -> Any:
        if _are_sets(value) or value in ([], ()):
            return value
        if isinstance(value, list | tuple):
            return ({"names": value},)
        return (parse_labels(value) if isinstance(value, str) else value,)

    @field_validator("model", mode="before")
    @classmethod
    def _short_model(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("output", mode="before")
    @classmethod
    def _short_output(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value


def _are_sets(value: Any) -> bool:
    """Whether labels are given as several sets, and not as the names or the fields of one."""
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping | LabelsSpec) for each in value)


LABEL_FILE_ENDINGS = (".txt", ".csv", ".json", ".yaml", ".yml")
HEAD_ENDING = ".safetensors"


def parse_labels(text: str) -> dict[str, Any]:
    """Read `--labels`: a label file or a head by its ending, else names between commas.

    Raises `SpecError` for what is hardly meant as names: a path, or the name of a set that is alone.
    """
    if text.lower().endswith(LABEL_FILE_ENDINGS):
        return {"path": text}
    if text.lower().endswith(HEAD_ENDING):
        return {"head": text}
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    if len(names) == 1 and (re.search(r"\.[a-z]\w{1,11}$", names[0]) or "/" in names[0] or Path(names[0]).is_file()):
        raise SpecError(
            f"labels: {names[0]!r} is no label file or head by its ending; use {', '.join(LABEL_FILE_ENDINGS)} or "
            f"{HEAD_ENDING}"
        )
    if names and (named := re.match(r"(\w+)=", names[0])):
        raise SpecError(
            f"labels: {named[0]} names a label set, and one that is alone needs no name: leave it out; labels that "
            "hold a = go into a file"
        )
    return {"names": names}


def parse_label_sets(texts: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Read several `--labels`, each of which may begin with the name of its set: `colours=red,blue`."""
    if len(texts) == 1:
        return (parse_labels(texts[0]),)
    return tuple(parse_named(text, parse_labels) for text in texts)


def parse_named(text: str, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Read what may begin with the name of a label set and a `=`."""
    name, found, rest = text.partition("=")
    return {"name": name.strip(), **parse(rest)} if found else parse(text)


def make_spec(fields: Mapping[str, Any]) -> JobSpec:
    """Validate a spec.  Raises `SpecError` that names every wrong field, its value and what is allowed."""
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as error:
        one_set = not _are_sets(fields.get("labels"))
        raise SpecError("\n".join(explain_faults(error, one_set))) from None


def change_spec(spec: JobSpec, fields: Mapping[str, Mapping[str, Any]]) -> JobSpec:
    """Make a spec with some fields changed, given by group.  Raises `SpecError` as `make_spec` does."""
    old = spec.model_dump()
    return make_spec({**old, **{group: {**old[group], **changed} for group, changed in fields.items()}})


def change_labels(spec: JobSpec, changes: Sequence[Mapping[str, Any]]) -> JobSpec:
    """Make a spec with some fields of its label sets changed, given for each set in order."""
    labels = tuple(each.model_copy(update=dict(changed)) for each, changed in zip(spec.labels, changes, strict=True))
    return spec.model_copy(update={"labels": labels})


def load_spec(path: str | Path) -> JobSpec:
    """Read a spec from a YAML (or JSON) file.  Raises `SpecError` that names the file."""
    try:
        fields = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(fields, dict):
        raise SpecError(f"{path}: a spec is a mapping with source, labels and output")
    try:
        return make_spec(fields)
    except SpecError as error:
        raise SpecError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def explain_faults(error: Any, one_set: bool = True) -> list[str]:
    """Say what pydantic found wrong with a spec, or a part of one, a line for each fault."""
    return [_explain(fault, one_set) for fault in error.errors()]


def _explain(fault: Any, one_set: bool) -> str:
    steps = [str(step) for step in fault["loc"]]
    if one_set and steps[:2] == ["labels", "0"]:
        del steps[1]  # the user wrote no list
    where = ".".join(steps) or "the spec"
    match fault["type"]:
        case kind if kind == _SECRET:
            return f"{where}: {fault['msg']}"
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            return f"{where} is not a field of the spec; see `zsic classify --help` for the fields"
        case "string_type" if isinstance(fault["input"], bool | int | float):
            return f"{where}: {fault['input']!r} is not a text; put it in quotes"
        case "invalid_key":
            return f"{where} is a key that YAML does not take for a text: {fault['input']!r}; put it in quotes"
        case _:
            return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}; got {fault['input']!r}"
