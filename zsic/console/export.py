"""`export`: progress while images are copied, and what became of them."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zsic.console.words import count, duration, err, out, show_table, size
from zsic.core.errors import IncompleteError, SpecError
from zsic.core.secrets import ADVICE, holds_credentials
from zsic.core.spec import StoreSpec
from zsic.core.terminal import printable
from zsic.core.wording import normalise

if TYPE_CHECKING:
    from zsic.export import Exported

LINE_EVERY_S = 10.0
SHOWN = 20
"""Labels in the table."""


def export(
    output: str, target: str, form: str, selection: Mapping[str, Any], shard_mb: int, store: Mapping[str, Any]
) -> None:
    """Copy an output's images out by label.  Raises `IncompleteError` if some were not to be had."""
    from zsic.export import ExportSpec, Selection
    from zsic.export import export as copy

    for name, url in {"OUT": output, "--output": target, "--s3-endpoint-url": store.get("s3_endpoint_url")}.items():
        if url and holds_credentials(url):
            raise SpecError(f"{name}: a URL holds credentials; {ADVICE}")
    spec = ExportSpec(
        output,
        target,
        form,  # type: ignore[arg-type]  # it refuses any other
        Selection(**{**selection, "labels": tuple(normalise(label) for label in selection["labels"])}),
        shard_mb,
        StoreSpec(**store),
    )
    started = time.monotonic()
    err.print("choosing rows ...", style="dim")
    exported = copy(spec, _Lines())
    show_exported(exported, time.monotonic() - started)
    if n_failed := sum(exported.failed.values()):
        reasons = ", ".join(f"{printable(name)} {count(n)}" for name, n in exported.failed.items())
        raise IncompleteError(
            f"{count(n_failed)} images were not to be had ({reasons}); the same command tries them again\n"
            + "\n".join(f"  {name}" for name in exported.named)
            + ("\n  ..." if n_failed > len(exported.named) else "")
        )


class _Lines:
    """A line of progress every ten seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, n_rows: int, n_all: int, n_bytes: int) -> None:
        if (now := time.monotonic()) - self._told >= LINE_EVERY_S:
            self._told = now
            err.print(f"{count(n_rows)} of {count(n_all)} images, {size(n_bytes)} written")


def show_exported(exported: "Exported", seconds: float) -> None:
    """Print what there is now."""
    target = printable(exported.target)
    n_there = exported.n_written + exported.n_before
    where = f"{target}/<label>/" if exported.n_shards is None else f"{count(exported.n_shards)} shards in {target}"
    out.print(f"{count(n_there)} images of {count(len(exported.n_by_label))} labels in {where}", markup=False)
    if exported.n_before:
        out.print(f"  {count(exported.n_before)} of them were there before")
    out.print(f"  {count(exported.n_written)} written, {size(exported.n_bytes)}, in {duration(seconds)}")
    rows = list(exported.n_by_label.items())
    show_table(["label", "chosen"], [(label, count(n)) for label, n in rows[:SHOWN]], right=(1,))
    if len(rows) > SHOWN:
        out.print(f"... and {count(len(rows) - SHOWN)} labels with fewer")
