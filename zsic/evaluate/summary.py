"""How an evaluation reads in a terminal."""

from collections.abc import Iterable, Sequence
from itertools import islice

from zsic.core.terminal import printable
from zsic.evaluate.evaluation import Evaluation

_N_NAMED = 5


def summary_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Give what is said of the whole output, as pairs; lines about what did not happen are left out."""
    e = evaluation
    rules = ", ".join(f"{n:,} by {printable(rule)}" for rule, n in e.joined_by.items())
    rows = [
        ("rows", f"{e.n_rows:,}"),
        ("rows with a truth", f"{e.n_matched:,} ({rules})"),
        ("top-1", str(e.top1)),
    ]
    if e.k > 1:
        rows.append((f"top-{e.k}", str(e.topk)))
    if e.n_scored < e.n_matched:
        failed = ", ".join(f"{n:,} {outcome}" for outcome, n in e.failed.items())
        rows.append(("failed, counted as wrong", f"{e.n_matched - e.n_scored:,} ({failed})"))
        rows.append(("top-1 without failed", str(e.top1_of_ok)))
        if e.k > 1:
            rows.append((f"top-{e.k} without failed", str(e.topk_of_ok)))
    if e.n_bad_shards:
        rows.append(("unreadable shards, not counted", f"{e.n_bad_shards:,}"))
    if e.n_truth_unmet:
        names = _listed(e.truth_unmet, e.n_truth_unmet)
        rows.append(("truth without an image", f"{e.n_truth_unmet:,} of {e.n_truth:,}: {names}"))
    if e.n_truth_shared:
        rows.append(("truth that several rows share", f"{e.n_truth_shared:,} of {e.n_truth:,}"))
    if e.unknown:
        names = _listed(e.unknown, len(e.unknown))
        rows.append(
            (
                "true labels not in the label set",
                f"{len(e.unknown):,} ({sum(e.unknown.values()):,} rows): {names}",
            )
        )
    return rows


def label_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Give label, number of images and top-1 of each label that has images, the worst first."""
    seen = [row for row in evaluation.per_label if row.top1.n]
    seen.sort(key=lambda row: (row.top1.value or 0.0, -row.top1.n))
    return [(printable(row.label), f"{row.top1.n:,}", str(row.top1)) for row in seen]


def render(evaluation: Evaluation, n_labels: int = 20) -> str:
    """Write an evaluation as plain text, with the `n_labels` worst labels."""
    rows = label_rows(evaluation)
    text = _aligned(summary_rows(evaluation))
    if rows and n_labels:
        title = "label" if len(rows) <= n_labels else f"label (worst {n_labels} of {len(rows):,})"
        text += "\n\n" + _aligned([(title, "images", "top-1"), *rows[:n_labels]])
    return text


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as columns, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _listed(names: Iterable[str], n: int) -> str:
    shown = ", ".join(printable(name) for name in islice(names, _N_NAMED))
    return shown if n <= _N_NAMED else f"{shown}, ..."
