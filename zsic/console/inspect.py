"""`predict`, `verify` and `model pull`: looking, without Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsic.console.words import err, out, show_json, show_table
from zsic.core.errors import DifferenceError, SpecError
from zsic.core.secrets import ADVICE, holds_credentials
from zsic.core.spec import DecodeSpec, StoreSpec
from zsic.core.terminal import printable

if TYPE_CHECKING:
    from zsic.evaluate.files import Filesystem
    from zsic.models.classifier import Judgement
    from zsic.storage.store import Store

SHOWN = 5
"""Predictions of an image in a table; JSON has them all, as the pipeline's answer has."""


def verify(output: str, s3_endpoint_url: str | None) -> None:
    """Recount an output.  Raises `DifferenceError` with every difference."""
    from zsic.storage.mirror import Mirror
    from zsic.storage.snapshot import last_snapshot
    from zsic.storage.verify import find_differences

    store = open_output(output, s3_endpoint_url)
    snapshot = last_snapshot(store)
    differences = list(find_differences(store))
    if snapshot is not None:
        differences += Mirror(store, StoreSpec(s3_endpoint_url=s3_endpoint_url)).find_differences(snapshot)
    if differences:
        raise DifferenceError("\n".join(differences))
    if snapshot is None:
        raise SpecError(f"{output}: holds no snapshot of zsic's; is it the folder that `classify` wrote?")
    out.print(f"whole: {snapshot.n_rows:,} rows in {len(snapshot.parts):,} parts, as snapshot {snapshot.sequence} says")


def open_output(output: str, s3_endpoint_url: str | None) -> "Store":
    """Open the store of an output.  Raises `SpecError` when a URL holds credentials."""
    from zsic.storage.store import open_store

    refuse_credentials(output=output, s3_endpoint_url=s3_endpoint_url)
    return open_store(output.rstrip("/"), StoreSpec(s3_endpoint_url=s3_endpoint_url))


def refuse_credentials(**urls: str | None) -> None:
    """Raise `SpecError` that names the field of a URL that holds credentials, and not the URL."""
    for name, url in urls.items():
        if url and holds_credentials(url):
            raise SpecError(f"{name}: a URL holds credentials; {ADVICE}")


def predict(
    images: Sequence[Path],
    labels: str,
    model: str,
    templates: Sequence[str],
    top_k: int | None,
    decode_mode: str,
    *,
    as_json: bool,
) -> None:
    """Classify images in this process.  An image that cannot be decoded is told, and the others still come."""
    from zsic.core.decode import DecodeError
    from zsic.models.classifier import Classifier

    classifier = Classifier(
        model,
        labels,
        templates=templates,
        decode=DecodeSpec(mode=decode_mode),  # type: ignore[arg-type]
        top_k=top_k,
    )
    judgements: list[Judgement | None] = []
    failures: list[str] = []
    for path in images:
        try:
            judgements += classifier.judge([path.read_bytes()])
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}") from None
        except DecodeError as error:
            judgements.append(None)
            failures.append(f"{path}: {error.failure.outcome}: {error.failure.detail}")
    if as_json:
        # One image gives its answers, several give a list of them: as the pipeline does.
        answers = [judgement and judgement.predictions for judgement in judgements]
        show_json(answers[0] if len(images) == 1 else answers)
    else:
        rows: list[tuple[object, ...]] = []
        for path, judgement in zip(images, judgements, strict=True):
            if judgement is None:
                continue
            for rank, entry in enumerate(judgement.predictions[: top_k or SHOWN]):
                rows.append((path if rank == 0 else "", rank + 1, entry["label"], entry["score"]))
            if classifier.has_rules:
                rows.append(("", "answer", _answer(judgement), judgement.score if judgement.score is not None else ""))
        show_table(["image", "rank", "label", "score"], rows, right=(1, 3))
    for failure in failures:
        err.print(f"zsic: {printable(failure)}", markup=False)
    if failures and len(failures) == len(images):
        raise SpecError("none of the images could be decoded")


def _answer(judgement: "Judgement") -> str:
    if judgement.label is None:
        return "none of these"
    if judgement.labels is not None:
        return ", ".join(judgement.labels)
    return " > ".join(judgement.path) if judgement.path is not None else judgement.label


def filesystem_of(uri: str, s3_endpoint_url: str | None) -> "Filesystem | None":
    """What opens a uri; None is the local disk."""
    if not uri.startswith("s3://"):
        return None
    import s3fs

    files: Filesystem = s3fs.S3FileSystem(endpoint_url=s3_endpoint_url, skip_instance_cache=True)
    return files


def pull_model(source: str, output: Path, revision: str | None) -> None:
    """Fetch a checkpoint into a folder."""
    from zsic.models.pull import pull

    checkpoint = pull(source, output, revision=revision)
    out.print(
        f"{printable(source)} is in {printable(str(output))}: {checkpoint.model_type}, digest {checkpoint.digest[:16]}",
        markup=False,
    )
    out.print(f"use it with --model {printable(str(output))}", markup=False)
