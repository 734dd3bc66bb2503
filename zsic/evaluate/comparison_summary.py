"""How a comparison reads in a terminal."""

from zsic.core.terminal import printable
from zsic.evaluate.comparison import Comparison
from zsic.evaluate.summary import listed, percent, unknown_rows

_N_SHARES = 3


def comparison_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Give what is said of both outputs, as pairs; lines about what did not happen are left out."""
    c = comparison
    rows = [("images in both", f"{c.n_both:,}")]
    for name, n, names in (
        ("only in this output", c.n_only_output, c.only_output),
        ("only in the other", c.n_only_against, c.only_against),
    ):
        if n:
            rows.append((name, f"{n:,}: {listed(names, n)}"))
    if c.n_repeated:
        rows.append(("repeated uri and key, left out", f"{c.n_repeated:,}"))
    if c.n_both:
        rows.append(("answers that changed", f"{c.n_both - c.alike.n_right:,} ({_changed(c)})"))
    if c.mean_score_change is not None:
        absolute = c.mean_absolute_score_change or 0.0
        rows.append(("score of the same image", f"{c.mean_score_change:+.3f} on average, {absolute:.3f} either way"))
    if c.accuracy is not None and c.accuracy.n:
        a = c.accuracy
        rows += [
            ("top-1 of this output", f"{a.output} of {a.n:,}"),
            ("top-1 of the other", str(a.against)),
            ("difference, percentage points", str(a)),
            ("gained and lost", f"{a.n_gained:,} and {a.n_lost:,}; McNemar's p = {a.p_value:.2g}"),
        ]
    rows += unknown_rows(c.unknown)
    return rows + _drift_rows(c)


def change_rows(comparison: Comparison, most: int = 10) -> list[tuple[str, str, str, str]]:
    """Give answer of the other output, answer of this one, images, and one of them; the most frequent first."""
    return [
        (
            printable(change.against),
            printable(change.output),
            f"{change.n:,}",
            " ".join(printable(part) for part in change.examples[0] if part) if change.examples else "-",
        )
        for change in comparison.changes[:most]
    ]


def label_change_rows(comparison: Comparison, most: int = 10) -> list[tuple[str, str, str, str, str]]:
    """Give label, images, gained, lost and the difference in percentage points; the most changed first."""
    return [
        (
            printable(row.label),
            f"{row.accuracy.n:,}",
            f"{row.accuracy.n_gained:,}",
            f"{row.accuracy.n_lost:,}",
            str(row.accuracy),
        )
        for row in comparison.per_label[:most]
        if row.accuracy.n_gained or row.accuracy.n_lost
    ]


def _changed(c: Comparison) -> str:
    """The share that changed, which is what is left of those alike, and so is its interval."""
    low, high = c.alike.interval
    return f"{percent(1 - (c.alike.value or 0.0))}, {100 * (1 - high):.1f} to {100 * (1 - low):.1f}"


def _drift_rows(c: Comparison) -> list[tuple[str, str]]:
    rows = []
    if c.labels is not None:
        rows.append(
            (
                "shift of label shares",
                f"{percent(c.labels.total_variation)}, where other images alone give {percent(c.labels.by_chance)}; "
                f"stability index {c.labels.stability_index:.3f}",
            )
        )
        most = [share for share in c.labels.shares[:_N_SHARES] if share.change]
        if most:
            told = ", ".join(
                f"{printable(share.label)} {percent(share.share_against)} to {percent(share.share_output)}"
                for share in most
            )
            rows.append(("most shifted", told))
    if c.scores is not None:
        rows.append(
            (
                "shift of scores",
                f"mean {c.scores.mean_against:.3f} to {c.scores.mean_output:.3f}; Kolmogorov-Smirnov "
                f"{c.scores.ks_low:.3f} to {c.scores.ks_high:.3f}",
            )
        )
    return rows
