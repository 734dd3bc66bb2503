"""Where the marks of a chart are, in the units of its view box; templates draw them.

Shape legend: M bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zsic.evaluate.calibration import Calibration
from zsic.evaluate.confusion import ConfusedPair
from zsic.evaluate.coverage import Coverage
from zsic.evaluate.evaluation import Evaluation

SIZE = 100.0
"""Side of the square in which reliability and coverage are drawn; y grows downwards, as in SVG."""
_MOST_CELLS = 12
"""Labels on either side of the matrix."""
_STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar that stands on the bottom, and what it says."""

    x: float
    width: float
    height: float
    low: float
    high: float
    n: int


def bars(low: float, high: float, n_M: Sequence[int]) -> list[Bar]:
    """Give the bars of a histogram in a box of 100 by 100, the highest as high as the box."""
    most, width = max(n_M, default=0) or 1, SIZE / max(len(n_M), 1)
    step = (high - low) / max(len(n_M), 1)
    return [Bar(m * width, width, SIZE * n / most, low + m * step, low + (m + 1) * step, n) for m, n in enumerate(n_M)]


def sparkline(n_M: Sequence[int]) -> str:
    """Give the path of a small histogram, in a box of 100 by 100."""
    steps = [f"V{SIZE - bar.height:.0f}H{bar.x + bar.width:.0f}" for bar in bars(0, 1, n_M)]
    return f"M0 {SIZE:.0f}{''.join(steps)}V{SIZE:.0f}Z"


@dataclass(frozen=True, slots=True)
class Dot:
    """The answers of one bin of score."""

    x: float
    y: float
    r: float
    """Its area tells how many there are."""
    bar_x: float
    bar_width: float
    bar_height: float


def reliability(calibration: Calibration) -> list[Dot]:
    """Give a dot for each bin that holds answers: mean score to the right, share of right answers upwards."""
    most = max((each.n for each in calibration.bins), default=0) or 1
    return [
        Dot(
            x=SIZE * each.mean_score,
            y=SIZE * (1 - each.accuracy),
            r=0.8 + 2.4 * (each.n / most) ** 0.5,
            bar_x=SIZE * each.low,
            bar_width=SIZE * (each.high - each.low),
            bar_height=SIZE * each.accuracy,
        )
        for each in calibration.bins
        if each.mean_score is not None and each.accuracy is not None
    ]


@dataclass(frozen=True, slots=True)
class CoverageLine:
    """Accuracy over coverage."""

    path: str
    low: float
    """Accuracy at the bottom."""
    rows: Sequence[tuple[float, float, float]]
    """Coverage, threshold of the score and accuracy, at some steps."""


def coverage_line(coverage: Coverage) -> CoverageLine | None:
    """Give the curve; None where there are no answers.  The bottom is the tenth below the lowest point."""
    points = [(point, value) for point in coverage.points if (value := point.accuracy.value) is not None]
    if not points:
        return None
    low = min(0.9, int(min(value for _, value in points) * 10) / 10)
    spots = [(SIZE * point.coverage, SIZE * (1 - (value - low) / (1 - low))) for point, value in points]
    rows: dict[float, tuple[float, float, float]] = {}
    for step in _STEPS:
        found = next(((point, value) for point, value in points if point.coverage >= step), points[-1])
        rows[found[0].coverage] = (found[0].coverage, found[0].threshold, found[1])
    return CoverageLine("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in spots), low, list(rows.values()))


@dataclass(frozen=True, slots=True)
class Matrix:
    """The labels that are taken for one another most often, against themselves."""

    labels: Sequence[str]
    n: Sequence[Sequence[int]]
    """Images by true label (rows) and answer (columns)."""
    n_true: Sequence[int]
    """Images of each true label, whatever they were answered with."""


def matrix(evaluation: Evaluation) -> Matrix | None:
    """Give the corner of the confusion matrix that most mistakes are in; None where there are none."""
    names: dict[str, None] = {}
    for pair in evaluation.confused:
        fresh = {pair.true: None, pair.answered: None}
        if len(names | fresh) > _MOST_CELLS:
            break
        names |= fresh
    if not names:
        return None
    known = {row.label: row for row in evaluation.per_label}
    labels = [label for label in known if label in names]
    counted = _counted(evaluation.confused)
    n_right = {label: known[label].recall.n_right for label in labels}
    return Matrix(
        labels,
        [[n_right[a] if a == b else counted.get((a, b), 0) for b in labels] for a in labels],
        [known[label].recall.n for label in labels],
    )


def _counted(pairs: Sequence[ConfusedPair]) -> dict[tuple[str, str], int]:
    return {(pair.true, pair.answered): pair.n for pair in pairs}
