"""Every figure as a row of one table: metric, label, value, bounds of its 95 % interval, and what it was counted from.

Metrics that are of the whole have no label; `label` is the label, the pair of labels as `true -> answered`, the bin
of scores as `0.2 to 0.4`, the threshold, or the outcome that a row is about.
"""

from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from zsic.core.errors import SpecError
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.calibration import Calibration
from zsic.evaluate.comparison import Comparison
from zsic.evaluate.coverage import Coverage
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.evaluation import Evaluation
from zsic.evaluate.files import Filesystem
from zsic.evaluate.mcnemar import PairedAccuracy

SCHEMA = pa.schema(
    [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n", pa.int64()),
    ]
)

Row = tuple[str, str | None, float | None, float | None, float | None, int | None]


def to_table(result: Evaluation | Comparison) -> pa.Table:
    """Give all figures of an evaluation or comparison."""
    rows = list(_of_evaluation(result) if isinstance(result, Evaluation) else _of_comparison(result))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], SCHEMA)


def write_figures(result: Evaluation | Comparison, path: str, filesystem: Filesystem | None = None) -> None:
    """Write all figures to a Parquet file.  Raises `SpecError` when it cannot be written."""
    try:
        with open(path, "wb") if filesystem is None else filesystem.open(path, "wb") as file:
            pq.write_table(to_table(result), file, compression="zstd")
    except OSError as error:
        raise SpecError(f"{path} cannot be written: {error.strerror or 'the store refuses it'}") from None


def _of_evaluation(e: Evaluation) -> Iterator[Row]:
    yield "rows", None, e.n_rows, None, None, e.n_rows
    yield from _share("top1", None, e.top1)
    if e.k > 1:
        yield from _share(f"top{e.k}", None, e.topk)
    yield from _share("top1_of_ok", None, e.top1_of_ok)
    if e.top1_of_answered is not None:
        yield from _share("top1_of_answered", None, e.top1_of_answered)
    yield from _share("rejected", None, Accuracy(e.n_rejected, e.n_scored))
    yield "of_none", None, e.n_of_none, None, None, e.n_rows
    for outcome, n in e.failed.items():
        yield from _share("failed", outcome, Accuracy(n, e.n_matched))
    if e.means is not None:
        yield _estimate("mean_recall", e.means.recall)
        yield _estimate("macro_precision", e.means.precision)
        yield _estimate("macro_f1", e.means.f1)
        yield _estimate("weighted_f1", e.means.weighted_f1)
    if e.mean_average_precision is not None:
        yield _estimate("mean_average_precision", e.mean_average_precision)
    for row in e.per_label:
        yield from _share("recall", row.label, row.recall)
        yield from _share("precision", row.label, row.precision)
        yield _estimate("f1", row.f1, row.label)
        if row.average_precision is not None:
            yield "average_precision", row.label, row.average_precision, None, None, row.recall.n
    for pair in e.confused:
        yield from _share("confused", f"{pair.true} -> {pair.answered}", Accuracy(pair.n, pair.n_true))
    for name, n in (e.unknown or {}).items():
        yield from _share("unknown", name, Accuracy(n, e.n_matched))
    if e.calibration is not None:
        yield from _of_calibration(e.calibration)
    if e.coverage is not None:
        yield from _of_coverage(e.coverage)


def _of_calibration(calibration: Calibration) -> Iterator[Row]:
    yield _estimate("calibration_error", calibration.error)
    yield "calibration_error_by_chance", None, calibration.error_by_chance, None, None, calibration.error.n
    for each in calibration.bins:
        label = f"{each.low:.3g} to {each.high:.3g}"
        yield from _share("reliability", label, Accuracy(each.n_right, each.n))
        yield "reliability_score", label, each.mean_score, None, None, each.n


def _of_coverage(coverage: Coverage) -> Iterator[Row]:
    yield _estimate("aurc", coverage.aurc)
    for point in coverage.points:
        threshold = f"{point.threshold:.9g}"
        yield "coverage", threshold, point.coverage, None, None, point.accuracy.n
        yield from _share("accuracy_at", threshold, point.accuracy)


def _of_comparison(c: Comparison) -> Iterator[Row]:
    yield "in_both", None, c.n_both, None, None, c.n_both
    yield "only_output", None, c.n_only_output, None, None, c.n_output
    yield "only_against", None, c.n_only_against, None, None, c.n_against
    yield from _share("alike", None, c.alike)
    yield "score_change", None, c.mean_score_change, None, None, None
    yield "absolute_score_change", None, c.mean_absolute_score_change, None, None, None
    if c.accuracy is not None:
        yield from _share("top1_output", None, c.accuracy.output)
        yield from _share("top1_against", None, c.accuracy.against)
        yield from _paired(None, c.accuracy)
        yield "p_value", None, c.accuracy.p_value, None, None, c.accuracy.n_gained + c.accuracy.n_lost
    for row in c.per_label:
        yield from _paired(row.label, row.accuracy)
    for change in c.changes:
        yield from _share("changed", f"{change.against} -> {change.output}", Accuracy(change.n, c.n_both))
    for name, n in (c.unknown or {}).items():
        yield "unknown", name, n, None, None, n
    if c.labels is not None:
        yield "total_variation", None, c.labels.total_variation, None, None, None
        yield "total_variation_by_chance", None, c.labels.by_chance, None, None, None
        yield "stability_index", None, c.labels.stability_index, None, None, None
        for share in c.labels.shares:
            yield "share_output", share.label, share.share_output, None, None, share.n_output
            yield "share_against", share.label, share.share_against, None, None, share.n_against
    if c.scores is not None:
        yield "kolmogorov_smirnov", None, None, c.scores.ks_low, c.scores.ks_high, None
        for (low, high), n_output, n_against in zip(
            pairwise(c.scores.edges), c.scores.n_output, c.scores.n_against, strict=True
        ):
            yield "scores_output", f"{low:g} to {high:g}", n_output, None, None, n_output
            yield "scores_against", f"{low:g} to {high:g}", n_against, None, None, n_against


def _share(metric: str, label: str | None, share: Accuracy) -> Iterator[Row]:
    if share.n:
        yield metric, label, share.value, *share.interval, share.n


def _estimate(metric: str, estimate: Estimate, label: str | None = None) -> Row:
    return metric, label, estimate.value, estimate.low, estimate.high, estimate.n


def _paired(label: str | None, paired: PairedAccuracy) -> Iterator[Row]:
    if paired.n:
        yield "difference", label, paired.difference, *paired.interval, paired.n
        yield "gained", label, paired.n_gained, None, None, paired.n
        yield "lost", label, paired.n_lost, None, None, paired.n
