"""A spec made concrete: its labels, model, geometry and output, and what of them decides the answers.

Reads small files only; no weights are loaded and Ray is not started.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from zsic.core.errors import SpecError
from zsic.core.labels import LabelSet, load_labels
from zsic.core.preprocess import Geometry
from zsic.core.schema import RESERVED_COLUMNS, SCHEMA_VERSION
from zsic.core.spec import JobSpec
from zsic.models.checkpoint import Checkpoint, resolve
from zsic.models.int8 import require_onnx
from zsic.models.processor import read_geometry
from zsic.models.weights import count_image_parameters
from zsic.pipeline.capacity import Layout, Node, Workload, lay_out
from zsic.pipeline.summary import last_rate
from zsic.storage.mirror import Mirror
from zsic.storage.objects import Objects
from zsic.storage.output import Output
from zsic.storage.store import open_store

DEFAULT_TOP_K = 5
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
    labels: LabelSet
    checkpoint: Checkpoint
    geometry: Geometry
    output: Output
    objects: Objects
    top_k: int
    dtype: str

    @property
    def fields(self) -> dict[str, object]:
        """What decides an answer, for the fingerprint.  How it is executed is not among them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": {"digest": self.checkpoint.digest, "dtype": self.dtype},
            "labels": {"digest": self.labels.digest, "n": len(self.labels.names)},
            "head": "mean of unit prompt embeddings, renormalised",
            "geometry": self.geometry.to_dict(),
            "decode": self.spec.decode.model_dump(),
            "scoring": {"top_k": self.top_k},
            "output": {
                "embeddings": self.spec.output.embeddings,
                "keep_columns": list(self.spec.source.keep_columns),
            },
        }

    @cached_property
    def last_rate(self) -> float | None:
        """Images/s of the output's last run; None if none tells."""
        return last_rate(self.output.store)

    @property
    def rate_is_known(self) -> bool:
        """Whether parts need not be sized by a guess."""
        return self.spec.output.rows_per_part is not None or self.last_rate is not None

    def lay_out(self, nodes: Sequence[Node], n_images: int, *, images_per_s: float | None = None) -> Layout:
        """Divide a cluster among the stages; the same for a run and for its preview.

        `images_per_s` is what this run has been measured to do; without it, what the last one did, or a guess.
        Raises `CapacityError` if the job could not make progress there.
        """
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
            self.spec.execution,
            self.spec.decode,
            nodes,
            workload,
            rows_per_part=self.spec.output.rows_per_part,
            images_per_s=images_per_s or self.last_rate,
        )


def prepare(spec: JobSpec) -> Job:
    """Resolve a spec.  Raises `SpecError`, `ModelError` or `StoreError`; nothing is written."""
    labels = load_labels(spec.labels)
    checkpoint = resolve(spec.model, spec.store)
    store = open_store(spec.output.uri, spec.store)
    output = Output(store, Mirror(store, spec.store, wanted=spec.output.publish == "delta"))
    for name in spec.source.keep_columns:
        if name in RESERVED_COLUMNS:
            raise SpecError(f"source.keep_columns: {name!r} is a column of the output; rename it in the source")
    return Job(
        spec=spec,
        labels=labels,
        checkpoint=checkpoint,
        geometry=read_geometry(checkpoint),
        output=output,
        objects=Objects(spec.store),
        top_k=resolve_top_k(spec.scoring.top_k, len(labels.names)),
        dtype=_resolve_dtype(spec, output),
    )


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
