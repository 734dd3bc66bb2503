"""`report`: a page about an output, or the same in short in the terminal."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsic.console.inspect import filesystem_of, open_output, refuse_credentials
from zsic.console.truth import find_truth
from zsic.console.words import count, err, out, show_table, size
from zsic.core.errors import SpecError
from zsic.core.outcome import Outcome
from zsic.core.spec import StoreSpec
from zsic.core.terminal import printable

if TYPE_CHECKING:
    from zsic.report import Report
    from zsic.report.cards import Card

_N_LABELS, _N_ROWS, _N_FAILED = 20, 10, 3
"""Labels, rows, and failed ones among them, in the terminal."""


def report(
    output: str,
    target: Path | None,
    *,
    truth: str | None = None,
    label_column: str | None = None,
    set_name: str | None = None,
    n_images: int | None = None,
    as_text: bool = False,
    explain: bool = False,
    sources: Mapping[str, Any] | None = None,
) -> None:
    """Write the page, print the text, or both; `sources` are the fields of `store` by which images are reached."""
    from zsic.report import make_report, render
    from zsic.report.report import N_IMAGES

    if target is None and not as_text:
        raise SpecError("--output is missing: the page to write, such as report.html; or print with --text")
    if explain and truth is None:
        raise SpecError("--explain is of mistakes, which --truth tells; give both")
    if target is not None and not target.resolve().parent.is_dir():
        raise SpecError(f"--output: {target.resolve().parent} is no folder")
    if target is not None and target.is_dir():
        raise SpecError(f"--output: {target} is a folder; name the page to write, such as {target / 'report.html'}")
    refuse_credentials(truth=truth)
    reach = StoreSpec(**(sources or {}))
    s3_endpoint_url = reach.s3_endpoint_url
    store = open_output(output, s3_endpoint_url)
    found = None if truth is None else find_truth(truth, label_column, s3_endpoint_url)
    made = make_report(
        store,
        truth=found,
        set_name=set_name,
        n_images=n_images or N_IMAGES,
        with_pictures=target is not None,
        explain=explain and target is not None,
        sources=reach,
        filesystem=filesystem_of(output, s3_endpoint_url),
    )
    if as_text:
        _show(made)
    if target is not None:
        page = render(made).encode()
        _write(target, page)
        _tell(made, target, len(page))


def _write(target: Path, page: bytes) -> None:
    """Write a file whole or not at all.  Raises `SpecError` where that is not possible."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            beside.write_bytes(page)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SpecError(f"--output: {target}: {error.strerror}") from None


def _tell(made: "Report", target: Path, n_bytes: int) -> None:
    n_pictures = sum(picture.small is not None for picture in made.pictures.values())
    out.print(
        f"{printable(str(target))}: {size(n_bytes)}, {count(n_pictures)} pictures; open it in any browser", markup=False
    )
    n_gone = sum(made.pictures[card.id].small is None for card in made.cards if card.outcome == Outcome.OK)
    if n_gone:
        err.print(f"{count(n_gone)} of the pictures could not be read again; the page says why", style="dim")


def _show(made: "Report") -> None:
    from zsic.evaluate import summary_rows
    from zsic.report.page import NO_LABEL

    found = made.survey
    show_table(
        ["outcome", "rows", "share"],
        [(name, count(n), f"{100 * n / found.n_rows:.1f} %") for name, n in found.outcomes.items()],
        right=(1, 2),
    )
    if made.evaluation is not None:
        out.print()
        show_table(["", ""], summary_rows(made.evaluation))
    out.print()
    show_table(
        ["label", "images", "share", "mean score"],
        [
            (
                NO_LABEL if each.label is None else each.label,
                count(each.n),
                f"{100 * each.n / found.n_ok:.1f} %",
                each.mean_score,
            )
            for each in found.labels[:_N_LABELS]
        ],
        right=(1, 2, 3),
    )
    if len(found.labels) > _N_LABELS:
        out.print(f"... and {count(len(found.labels) - _N_LABELS)} labels with fewer images", style="dim")
    out.print()
    read = [card for card in made.cards if card.outcome == Outcome.OK]
    failed = [card for card in made.cards if card.outcome != Outcome.OK][:_N_FAILED]
    # From all over them, not of the first label alone.
    shown = read[:: max(1, -(-len(read) // (_N_ROWS - len(failed))))] + failed
    show_table(
        ["image", "shown as", "outcome", "label", "score", "next best", "score"], [*map(_cells, shown)], right=(4, 6)
    )


def _cells(card: "Card") -> tuple[object, ...]:
    second = card.predictions[1] if len(card.predictions) > 1 else None
    return (
        *(card.name, card.kinds[0], card.outcome, card.label, card.score),
        *((second.label, second.score) if second else (None, None)),
    )
