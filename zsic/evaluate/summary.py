"""How an evaluation reads in a terminal."""

from collections.abc import Iterable, Sequence
from itertools import islice
from math import ceil, log10

from zsic.core.terminal import printable
from zsic.evaluate.calibration import Calibration
from zsic.evaluate.coverage import Coverage
from zsic.evaluate.evaluation import Evaluation

_N_NAMED = 5
_COVERAGES = (0.8, 0.9)
"""Shares of images for which it is said how many answers are right; the curve has more."""


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
    if e.n_rejected:
        rows.append(("rejected, counted as wrong", f"{e.n_rejected:,} of {e.n_scored:,}"))
        rows.append(("top-1 of what was answered", str(e.top1_of_answered)))
    if e.n_of_none:
        rows.append(("of none of the labels, in precision alone", f"{e.n_of_none:,}"))
    rows += _mean_rows(e)
    if e.calibration is not None and e.calibration.error.value is not None:
        rows.append(("calibration error", _calibration(e.calibration)))
    if e.coverage is not None:
        rows += _coverage_rows(e.coverage)
    if e.n_bad_shards:
        rows.append(("unreadable shards, not counted", f"{e.n_bad_shards:,}"))
    if e.n_truth_unmet:
        names = listed(e.truth_unmet, e.n_truth_unmet)
        rows.append(("truth without an image", f"{e.n_truth_unmet:,} of {e.n_truth:,}: {names}"))
    if e.n_truth_shared:
        rows.append(("truth that several rows share", f"{e.n_truth_shared:,} of {e.n_truth:,}"))
    rows += unknown_rows(e.unknown)
    return rows


def unknown_rows(unknown: dict[str, int] | None) -> list[tuple[str, str]]:
    """Name the true labels that are no answers; nothing where there are none."""
    if not unknown:
        return []
    names = listed(unknown, len(unknown))
    return [("true labels not in the label set", f"{len(unknown):,} ({sum(unknown.values()):,} rows): {names}")]


def label_rows(evaluation: Evaluation) -> list[tuple[str, str, str, str, str]]:
    """Give label, number of images, top-1 (or recall), precision and F1 of each label with images, the worst first."""
    seen = [row for row in evaluation.per_label if row.recall.n]
    seen.sort(key=lambda row: (row.recall.value or 0.0, -row.recall.n))
    return [
        (
            printable(row.label),
            f"{row.recall.n:,}",
            str(row.recall),
            percent(row.precision.value),
            percent(row.f1.value),
        )
        for row in seen
    ]


def label_header(evaluation: Evaluation) -> tuple[str, str, str, str, str]:
    """Name the columns of `label_rows`."""
    return ("label", "images", "recall" if evaluation.several else "top-1", "precision", "F1")


def confused_rows(evaluation: Evaluation, most: int = 10) -> list[tuple[str, str, str]]:
    """Give true label, answer, and how many images of how many, the most frequent first."""
    return [
        (printable(pair.true), printable(pair.answered), f"{pair.n:,} of {pair.n_true:,}")
        for pair in evaluation.confused[:most]
    ]


def render(evaluation: Evaluation, n_labels: int = 20) -> str:
    """Write an evaluation as plain text, with the `n_labels` worst labels."""
    rows = label_rows(evaluation)
    text = aligned(summary_rows(evaluation))
    if rows and n_labels:
        title = "label" if len(rows) <= n_labels else f"label (worst {n_labels} of {len(rows):,})"
        text += "\n\n" + aligned([(title, *label_header(evaluation)[1:]), *rows[:n_labels]])
    return text


def percent(share: float | None) -> str:
    """Write a share without its interval."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _mean_rows(e: Evaluation) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if e.means is not None and e.means.recall.n > 1:
        rows += [
            ("mean recall of the labels", str(e.means.recall)),
            ("macro F1", str(e.means.f1)),
            ("weighted F1", str(e.means.weighted_f1)),
        ]
    if e.mean_average_precision is not None:
        rows.append(("mean average precision", str(e.mean_average_precision)))
    return rows


def _calibration(calibration: Calibration) -> str:
    told = f"{calibration.error}; {percent(calibration.error_by_chance)} by chance"
    if calibration.mean_score is None:
        return told
    return f"{told}; mean score {percent(calibration.mean_score)} where {percent(calibration.accuracy)} are right"


def _score(score: float) -> str:
    """Write a score so that it is told from 0 and from 1: 0.000012, 0.5, 0.99987."""
    nearest = min(score, 1 - score)
    return f"{score:g}" if nearest <= 0 else f"{score:.{1 + max(1, ceil(-log10(nearest)))}f}"


def _coverage_rows(coverage: Coverage) -> list[tuple[str, str]]:
    rows = []
    for share in _COVERAGES:
        point = coverage.at(share)
        if point is not None:
            rows.append(
                (
                    f"top-1 at a score of {_score(point.threshold)} or more",
                    f"{point.accuracy}, for {percent(point.coverage)} of images",
                )
            )
    if coverage.aurc.value is not None:
        rows.append(("area under risk and coverage", str(coverage.aurc)))
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as columns, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def listed(names: Iterable[str], n: int) -> str:
    """Name the first few of `n`."""
    shown = ", ".join(printable(name) for name in islice(names, _N_NAMED))
    return shown if n <= _N_NAMED else f"{shown}, ..."
