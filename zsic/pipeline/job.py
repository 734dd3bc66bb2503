"""A spec made concrete: its labels, model, geometry and output, and what of them decides the answers.

Reads small files only; no weights are loaded and Ray is not started.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from zsic.core.errors import SpecError
from zsic.core.labels import LabelSet, load_labels
from zsic.core.preprocess import Geometry
from zsic.core.schema import SCHEMA_VERSION, SOURCE_TOTAL, output_schema
from zsic.core.spec import ExecutionSpec, JobSpec, LabelsSpec, UpdateSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.head import METHOD, Head
from zsic.models.head_cache import find_heads, load_head
from zsic.models.heads import Heads, columns_of
from zsic.models.int8 import require_onnx
from zsic.models.processor import read_geometry
from zsic.models.weights import count_image_parameters
from zsic.pipeline.capacity import Layout, Node, Workload, lay_out, lay_out_relabelling
from zsic.pipeline.summary import last_rate
from zsic.storage.changes import Changes
from zsic.storage.mirror import Mirror
from zsic.storage.objects import Objects
from zsic.storage.origin import Origin
from zsic.storage.output import Listing, Output, Work
from zsic.storage.pending import Pending, PendingCount
from zsic.storage.sources import list_sources
from zsic.storage.store import open_store
from zsic.storage.video import require_av

DEFAULT_TOP_K = 5
MAX_DECODERS = 8
"""Decoder processes of a job that runs in one process: more than one encoder keeps up with on CPUs."""
QUANTISED = "int8"
"""What stands for the dtype of a job with `model.quantize`."""
ROW_BYTES = 500
"""Of one row without its embedding, in memory: uri, key and five predictions."""
EMBEDDING_BYTES = 2_048
"""Of an embedding of width 1,024, which is more than most have; the true width is in the weights."""


@dataclass(frozen=True)
class Job:
    """Everything that a run needs to know before it starts."""

    spec: JobSpec
    sets: tuple[LabelSet | Head, ...]
    """The label sets, in the order of their columns; those that come as files are compiled already."""
    checkpoint: Checkpoint
    geometry: Geometry
    output: Output
    objects: Objects
    top_ks: tuple[int, ...]
    """Predictions kept, by set."""
    dtype: str
    origin: Origin | None = None
    """The output whose rows get other labels; None where images are classified."""

    @property
    def fields(self) -> dict[str, object]:
        """What decides an answer, for the fingerprint.  How it is executed is not among them."""
        pixels: dict[str, object] = {}
        if self.origin is None:
            pixels = {"geometry": self.geometry.to_dict(), "decode": self.spec.decode.model_dump()}
        else:
            pixels = {"embeddings_of": self.origin.fingerprint}
        if self.spec.source.fps is not None:
            pixels["source.fps"] = self.spec.source.fps  # else not named: it decides nothing of other sources
        return {
            "schema_version": SCHEMA_VERSION,
            "model": {"digest": self.checkpoint.digest, "dtype": self.dtype},
            "labels": _of_one_or_each(self._describe_sets()),
            "head": METHOD,
            **pixels,
            "scoring": {"top_k": _of_one_or_each(list(self.top_ks))},
            "output": {"embeddings": self.spec.output.embeddings, "keep_columns": list(self.keep_columns)},
        }

    @property
    def keep_columns(self) -> tuple[str, ...]:
        """Columns of the source that the output has."""
        return self.spec.source.keep_columns if self.origin is None else self.origin.keep_columns

    @property
    def listing(self) -> Listing:
        """The sources; listed as it is iterated, each time anew."""
        if self.origin is not None:
            return self.origin
        return list_sources(self.spec.source, self.objects, excluding=self.output.store.uri)

    @property
    def update(self) -> UpdateSpec:
        """What is done about what the output holds already: one that follows another has no rows of its own accord."""
        return self.spec.update if self.origin is None else UpdateSpec(prune=True)

    def compare(self, listing: Listing) -> Changes:
        """What the sources ask for, without doing it."""
        return self.output.compare(listing, self.update, retry=self.origin is None)

    def begin(self, listing: Listing, tell: Callable[[str], None]) -> Work:
        """Take up the open plan of the output, or make one."""
        source = self.spec.source.model_dump(mode="json")
        return self.output.begin(listing, self.fields, source, self.update, retry=self.origin is None, tell=tell)

    def estimate(self, counted: PendingCount, image_bytes: float | None = None) -> Pending:
        """How much is left to do."""
        if self.origin is not None:
            return self.origin.estimate(counted)
        return counted.estimate(self.objects, self.spec, image_bytes)

    def _describe_sets(self) -> list[dict[str, object]]:
        described: list[dict[str, object]] = [
            {"digest": each.question if isinstance(each, Head) else each.digest, "n": len(each.names)}
            for each in self.sets
        ]
        if len(self.sets) == 1:
            return described  # a name that ends no column decides nothing
        return [{"name": each.name, **entry} for each, entry in zip(self.sets, described, strict=True)]

    def find_heads(self) -> Heads:
        """Compile the label sets, or find them compiled."""
        return find_heads(self.sets, self.top_ks, self.checkpoint)

    @cached_property
    def last_rate(self) -> float | None:
        """Images/s of the output's last run; None if none tells."""
        return last_rate(self.output.store)

    @property
    def rate_is_known(self) -> bool:
        """Whether parts need not be sized by a guess."""
        return self.origin is not None or self.spec.output.rows_per_part is not None or self.last_rate is not None

    def lay_out(self, nodes: Sequence[Node], n_images: int, *, images_per_s: float | None = None) -> Layout:
        """Divide a cluster among the stages; the same for a run and for its preview.

        `images_per_s` is what this run has been measured to do; without it, what the last one did, or a guess.
        Raises `CapacityError` if the job could not make progress there.
        """
        return self._lay_out(self.spec.execution, nodes, n_images, images_per_s)

    def lay_out_locally(self, node: Node, n_images: int) -> Layout:
        """Lay the job out in one process: threads and sizes only, since nothing is reserved."""
        cpus = int(node.cpus)
        # In one process nothing waits for a reservation: a part of a core for each stage always fits.
        shares = {"decode_cpus": 0.125, "encoders": 1, "max_encoders": None, "decode_tasks": 1}
        layout = self._lay_out(self.spec.execution.model_copy(update=shares), [node], n_images, None)
        return replace(
            layout,
            decode_cpus=float(cpus),
            decode_threads=min(cpus, MAX_DECODERS),
            encoder_calls=1,
            encoder_cpus=0.0 if layout.encoder_gpus else float(cpus),
            write_cpus=float(cpus),
            write_tasks=1,
        )

    def shards_per_slice(self, layout: Layout) -> int:
        """Return how many shards one decode task reads; a relabel's shards are parts, of known size."""
        return 1 if self.origin is None else max(1, layout.images_per_slice // self.origin.rows_per_part)

    def _lay_out(
        self, execution: ExecutionSpec, nodes: Sequence[Node], n_images: int, images_per_s: float | None
    ) -> Layout:
        if self.origin is not None:
            return lay_out_relabelling(
                execution,
                nodes,
                rows_of_a_part=self.origin.most_rows,
                row_bytes=ROW_BYTES + 2 * self.origin.dim,
                n_rows=n_images,
                rows_per_part=self.spec.output.rows_per_part,
                images_per_s=images_per_s or self.last_rate,
            )
        height, width = self.geometry.size
        workload = Workload(
            height=height,
            width=width,
            # The first encoder of a machine makes the int8 tower, from weights that it holds several times meanwhile.
            weights_bytes=(8 if self.dtype == QUANTISED else 4) * count_image_parameters(self.checkpoint),
            n_images=n_images,
            row_bytes=ROW_BYTES + (EMBEDDING_BYTES if self.spec.output.embeddings else 0),
        )
        return lay_out(
            execution,
            self.spec.decode,
            nodes,
            workload,
            rows_per_part=self.spec.output.rows_per_part,
            images_per_s=images_per_s or self.last_rate,
        )


def prepare(spec: JobSpec) -> Job:
    """Resolve a spec.  Raises `SpecError`, `ModelError` or `StoreError`; nothing is written."""
    origin = Origin.open(spec.source, spec.store) if spec.source.format == "output" else None
    if spec.source.fps is not None:
        require_av()
    checkpoint = resolve(spec.model, spec.store)
    if origin is not None:
        _check_origin(origin, checkpoint, spec)
    sets = _load_sets(spec.labels, checkpoint)
    store = open_store(spec.output.uri, spec.store)
    output = Output(store, Mirror(store, spec.store, wanted=spec.output.publish == "delta"))
    # Those of other rules, too, or readers would take a kept column for one of them.
    ours = [replace(columns, has_labels=True, has_path=True) for columns in columns_of(sets)]
    reserved = {*output_schema((), 1, ours).names, SOURCE_TOTAL}
    for at, name in enumerate(spec.source.keep_columns):
        if name in reserved:
            raise SpecError(f"source.keep_columns: {name!r} is a column of the output; rename it in the source")
        if name in spec.source.keep_columns[:at]:
            raise SpecError(f"source.keep_columns: {name!r} is there twice; keep it once")
    return Job(
        spec=spec,
        sets=sets,
        checkpoint=checkpoint,
        geometry=read_geometry(checkpoint),
        output=output,
        objects=Objects(spec.store),
        top_ks=tuple(resolve_top_k(spec.scoring.top_k, len(each.names)) for each in sets),
        dtype=_resolve_dtype(spec, output) if origin is None else origin.fields["model"]["dtype"],
        origin=origin,
    )


def _check_origin(origin: Origin, checkpoint: Checkpoint, spec: JobSpec) -> None:
    """See to it that labels and embeddings are of one model."""
    theirs = origin.fields["model"]["digest"]
    if theirs != checkpoint.digest:
        named = f"{origin.model} at {origin.revision}" if origin.revision else origin.model
        raise SpecError(
            f"model.name: {checkpoint.name} (weights {checkpoint.digest[:16]}) is not the model that made the "
            f"embeddings of {origin.store.uri}: {named} ({theirs[:16]}); name that one"
        )
    if spec.model.quantize is not None:
        raise SpecError("model.quantize is for images, and source.format is output, whose images are encoded already")
    if open_store(spec.output.uri, spec.store).uri == origin.store.uri:
        raise SpecError(f"output.uri: {spec.output.uri} is the source, too; an output keeps its labels: name another")


def _of_one_or_each(entries: list[Any]) -> Any:
    """The entry of a job with one label set, or the list of them."""
    return entries[0] if len(entries) == 1 else entries


def _load_sets(specs: Sequence[LabelsSpec], checkpoint: Checkpoint) -> tuple[LabelSet | Head, ...]:
    """Read the label sets of a job.  Raises `SpecError`, where there are several, unless each has a name of its own."""
    fields = ["labels"] if len(specs) == 1 else [f"labels.{i}" for i in range(len(specs))]
    sets: list[LabelSet | Head] = []
    for spec, field in zip(specs, fields, strict=True):
        if spec.head is None or spec.path or spec.names:
            sets.append(load_labels(spec, field))
            continue
        if spec.templates:
            raise SpecError(f"{field}.templates: {spec.head} has its prompts already; compile it again with others")
        head = load_head(spec.head, checkpoint, f"{field}.head")
        sets.append(replace(head, name=spec.name or head.name))
    if len(sets) == 1:
        return tuple(sets)
    first: dict[str, str] = {}
    for each, field in zip(sets, fields, strict=True):
        if each.name is None:
            raise SpecError(
                f"{field}.name is missing; of several label sets each needs one, for its columns: `colours=red,blue`"
            )
        if each.name in first:
            raise SpecError(f"{field}.name is {each.name!r}, as {first[each.name]}.name is; use another")
        first[each.name] = field
    return tuple(sets)


def resolve_top_k(top_k: int | None, n_labels: int) -> int:
    """The number of predictions to keep.  Raises `SpecError` if there are fewer labels."""
    if top_k is None:
        return min(DEFAULT_TOP_K, n_labels)
    if top_k > n_labels:
        raise SpecError(f"scoring.top_k is {top_k} but labels has {n_labels}; use at most {n_labels}")
    return top_k


def _quantised(spec: JobSpec) -> str:
    if spec.execution.num_gpus > 0:
        raise SpecError(
            f"model.quantize is int8, which is for CPUs, and execution.num_gpus is {spec.execution.num_gpus:g}; "
            "leave one of them out"
        )
    if spec.model.dtype not in ("auto", "float32"):
        raise SpecError(f"model.quantize is int8, and model.dtype is {spec.model.dtype}; leave one of them out")
    require_onnx()
    return QUANTISED


def _resolve_dtype(spec: JobSpec, output: Output) -> str:
    """`auto` is what the output's first run chose, so that a resume on other hardware gives the same numbers."""
    if spec.model.quantize is not None:
        return _quantised(spec)
    if spec.model.dtype != "auto":
        return spec.model.dtype
    owner = output.read_job()
    model = owner.get("model") if owner else None
    if isinstance(model, dict) and model.get("dtype", QUANTISED) != QUANTISED:
        return str(model["dtype"])
    return "bfloat16" if spec.execution.on_device == "cuda" else "float32"
