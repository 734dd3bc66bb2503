"""Figures against scikit-learn's and SciPy's on the same rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from zsic.evaluate import Evaluation, evaluate, load_truth
from zsic.evaluate.grid import first_of_bins

MakeRow = Callable[..., dict[str, Any]]
WritePart = Callable[..., str]

N_ROWS, N_LABELS, K = 400, 7, 3
LABELS = [f"label {number}" for number in range(N_LABELS)]


@pytest.fixture
def scores() -> np.ndarray:
    """Scores [rows, labels] that sum to 1 and lean to the right label, which is the row's number modulo 6."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(N_ROWS, N_LABELS)) * 1.5
    logits[np.arange(N_ROWS), np.arange(N_ROWS) % 6] += 1.5
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


def rows_of(make_row: MakeRow, scores: np.ndarray, truth: list[str], **columns: Any) -> list[dict[str, Any]]:
    rows = []
    for i, score in enumerate(scores):
        best = np.argsort(-score, kind="stable")[:K]
        row = make_row(f"{i}.jpg", [LABELS[each] for each in best], truth=truth[i], score=float(score[best[0]]))
        for entry, each in zip(row["predictions"], best, strict=True):
            entry["score"] = float(score[each])
        rows.append({**row, **{name: values[i] for name, values in columns.items()}})
    return rows


class TestOneLabel:
    @pytest.fixture
    def true(self) -> list[str]:
        return [LABELS[i % 6] for i in range(N_ROWS)]

    @pytest.fixture
    def result(self, make_row: MakeRow, write_part: WritePart, scores: np.ndarray, true: list[str]) -> Evaluation:
        rows = rows_of(make_row, scores, true)
        # Every tenth image fails, every eleventh is rejected.
        for i in range(0, N_ROWS, 10):
            rows[i] |= {"outcome": "corrupt", "label": None, "score": None, "predictions": None}
        for i in range(5, N_ROWS, 11):
            rows[i] |= {"label": None, "score": None}
        self.answered = [row["label"] or "-" for row in rows]
        self.rows = rows
        part = write_part(rows, labels=LABELS, keep_columns=["truth"], row_group_size=90)
        return evaluate(part, load_truth("column:truth"), k=K)

    def test_recall_precision_and_f1_by_label(self, result: Evaluation, true: list[str]) -> None:
        expected = precision_recall_fscore_support(true, self.answered, labels=LABELS, zero_division=0)
        got = [
            (row.precision.value or 0, row.recall.value or 0, row.f1.value or 0, row.recall.n)
            for row in result.per_label
        ]
        np.testing.assert_allclose(got, np.transpose(expected))

    def test_means_over_labels(self, result: Evaluation, true: list[str]) -> None:
        seen = sorted(set(true))
        for average in ("macro", "weighted"):
            expected = precision_recall_fscore_support(
                true, self.answered, labels=seen, average=average, zero_division=0
            )
            assert result.means is not None
            if average == "macro":
                assert result.means.precision.value == pytest.approx(expected[0])
                assert result.means.recall.value == pytest.approx(expected[1])
                assert result.means.f1.value == pytest.approx(expected[2])
            else:
                assert result.means.weighted_f1.value == pytest.approx(expected[2])

    @pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
    def test_mean_recall_is_balanced_accuracy(self, result: Evaluation, true: list[str]) -> None:
        assert result.means is not None
        assert result.means.recall.value == pytest.approx(balanced_accuracy_score(true, self.answered))

    def test_confused_pairs(self, result: Evaluation, true: list[str]) -> None:
        matrix = confusion_matrix(true, self.answered, labels=LABELS)
        got = np.diag([row.recall.n_right for row in result.per_label])
        for pair in result.confused:
            got[LABELS.index(pair.true), LABELS.index(pair.answered)] = pair.n
        np.testing.assert_array_equal(got, matrix)
        assert result.n_confused_pairs == np.count_nonzero(matrix - np.diag(np.diag(matrix)))
        assert [pair.n for pair in result.confused] == sorted((pair.n for pair in result.confused), reverse=True)

    def test_top_k(self, result: Evaluation, scores: np.ndarray) -> None:
        # What is rejected is wrong, whatever its predictions are.
        kept = [i for i in range(N_ROWS) if i % 10 and i % 11 != 5]
        true = [i % 6 for i in kept]
        expected = top_k_accuracy_score(true, scores[kept], k=K, labels=range(N_LABELS), normalize=False)
        assert result.topk_of_ok.n_right == expected

    def test_area_under_risk_and_coverage_is_the_mean_risk(self, result: Evaluation, true: list[str]) -> None:
        answered = [(row["score"], row["label"] != true[i]) for i, row in enumerate(self.rows) if row["label"]]
        wrong = np.array([is_wrong for _, is_wrong in sorted(answered, key=lambda each: -each[0])])
        expected = (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()
        assert result.coverage is not None
        # Scores of one bin, 1/128 apart, are in no order there.
        assert result.coverage.aurc.value == pytest.approx(expected, abs=2e-3)

    def test_each_point_of_coverage_is_a_plain_count(self, result: Evaluation, true: list[str]) -> None:
        answered = [(row["score"], row["label"] == true[i]) for i, row in enumerate(self.rows) if row["label"]]
        assert result.coverage is not None
        assert len(result.coverage.points) > 20
        for point in result.coverage.points:
            above = [right for score, right in answered if np.float32(score) >= np.float32(point.threshold)]
            assert (point.accuracy.n_right, point.accuracy.n) == (sum(above), len(above))
            assert point.coverage == len(above) / result.n_scored
        assert result.coverage.points[-1].accuracy == result.top1_of_answered

    def test_calibration_error_is_the_definition(self, result: Evaluation, true: list[str]) -> None:
        answered = [(row["score"], row["label"] == true[i]) for i, row in enumerate(self.rows) if row["label"]]
        error = 0.0
        for m in range(15):
            inside = [(s, right) for s, right in answered if m / 15 < s <= (m + 1) / 15]
            if inside:
                error += abs(sum(s for s, _ in inside) - sum(right for _, right in inside)) / len(answered)
        assert result.calibration is not None
        assert result.calibration.error.value == pytest.approx(error, abs=1e-9)
        assert result.calibration.accuracy == result.top1_of_answered.value

    def test_rejected_and_failed_are_told_apart(self, result: Evaluation) -> None:
        n_rejected = sum(i % 11 == 5 and i % 10 != 0 for i in range(N_ROWS))
        # The rows whose label is null in spite of an outcome of ok; a failed one that was rejected too has failed.
        assert (result.n_rejected, result.failed) == (n_rejected, {"corrupt": 40})
        assert result.top1_of_answered.n == N_ROWS - 40 - n_rejected


class TestSeveralLabels:
    @pytest.fixture
    def is_true(self, scores: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(8)
        is_true = (scores + rng.random(scores.shape) * 0.3) > 0.35
        is_true[:, 6] = False
        is_true[~is_true.any(1), 0] = True
        return is_true

    def write_truth(self, folder: Path, is_true: np.ndarray) -> str:
        path = folder / "truth.jsonl"
        rows = ({"uri": f"{i}.jpg", "label": np.array(LABELS)[row].tolist()} for i, row in enumerate(is_true))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def evaluate(
        self, folder: Path, make_row: MakeRow, write_part: WritePart, scores: np.ndarray, is_true: np.ndarray
    ) -> Evaluation:
        part = write_part(rows_of(make_row, scores, [""] * len(scores)), labels=LABELS, row_group_size=90)
        return evaluate(part, load_truth(self.write_truth(folder, is_true)), k=K)

    def test_average_precision(
        self, tmp_path: Path, make_row: MakeRow, write_part: WritePart, scores: np.ndarray, is_true: np.ndarray
    ) -> None:
        # On the grid, equal scores are equal for both; what is not among the best three is below all.
        ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
        grid = first_of_bins()
        scores = grid[np.searchsorted(grid, scores, side="right") - 1]
        kept = np.where(ranks < K, scores, -1)
        # Ties that the grid made stay as they were ranked.
        result = self.evaluate(tmp_path, make_row, write_part, kept.astype(np.float32), is_true)
        expected = [average_precision_score(is_true[:, c], kept[:, c]) for c in range(6)]
        assert [row.average_precision for row in result.per_label[:6]] == pytest.approx(expected)
        assert result.per_label[6].average_precision is None
        assert result.mean_average_precision is not None
        assert result.mean_average_precision.value == pytest.approx(np.mean(expected))
        assert result.mean_average_precision.n == 6

    def test_average_precision_off_the_grid_is_close(
        self, tmp_path: Path, make_row: MakeRow, write_part: WritePart, scores: np.ndarray, is_true: np.ndarray
    ) -> None:
        result = self.evaluate(tmp_path, make_row, write_part, scores, is_true)
        ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
        kept = np.where(ranks < K, scores, -1)
        expected = np.mean([average_precision_score(is_true[:, c], kept[:, c]) for c in range(6)])
        assert result.mean_average_precision is not None
        assert result.mean_average_precision.value == pytest.approx(expected, abs=3e-3)

    def test_one_answer_is_compared_with_all_true_labels(
        self, tmp_path: Path, make_row: MakeRow, write_part: WritePart, scores: np.ndarray, is_true: np.ndarray
    ) -> None:
        result = self.evaluate(tmp_path, make_row, write_part, scores, is_true)
        best = np.argsort(-scores, axis=1, kind="stable")
        assert result.several
        assert result.top1.n_right == is_true[np.arange(N_ROWS), best[:, 0]].sum()
        assert result.topk.n_right == np.take_along_axis(is_true, best[:, :K], 1).any(1).sum()

    def test_every_label_that_passed_counts_where_the_output_has_them(
        self, tmp_path: Path, make_row: MakeRow, scores: np.ndarray, is_true: np.ndarray
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from zsic.core.schema import output_schema, with_metadata

        is_chosen = scores > 0.2
        chosen = [[LABELS[c] for c in np.argsort(-score, kind="stable") if score[c] > 0.2] for score in scores]
        rows = rows_of(make_row, scores, [""] * N_ROWS, labels=chosen)
        schema = output_schema().append(pa.field("labels", pa.list_(pa.field("element", pa.string()))))
        pq.write_table(pa.Table.from_pylist(rows, with_metadata(schema, {"labels": LABELS})), tmp_path / "p.parquet")
        result = evaluate(str(tmp_path / "p.parquet"), load_truth(self.write_truth(tmp_path, is_true)))
        expected = precision_recall_fscore_support(is_true, is_chosen, average="macro", labels=range(6))
        assert result.means is not None
        got = [each.value for each in (result.means.precision, result.means.recall, result.means.f1)]
        assert got == pytest.approx(expected[:3])
        weighted = precision_recall_fscore_support(is_true, is_chosen, average="weighted", labels=range(6))
        assert result.means.weighted_f1.value == pytest.approx(weighted[2])

        # Images of which no label is true count where answers do.
        some_none = is_true.copy()
        some_none[::7] = False
        result = evaluate(str(tmp_path / "p.parquet"), load_truth(self.write_truth(tmp_path, some_none)))
        assert (result.n_of_none, result.n_matched) == (len(range(0, N_ROWS, 7)), N_ROWS - len(range(0, N_ROWS, 7)))
        expected = precision_recall_fscore_support(some_none, is_chosen, average="macro", labels=range(6))
        assert result.means is not None
        got = [each.value for each in (result.means.precision, result.means.recall, result.means.f1)]
        assert got == pytest.approx(expected[:3])
        best = np.argsort(-scores, axis=1, kind="stable")
        kept = np.where(np.argsort(best, axis=1) < K, scores, -1)
        average = np.mean([average_precision_score(some_none[:, c], kept[:, c]) for c in range(6)])
        assert result.mean_average_precision is not None
        assert result.mean_average_precision.value == pytest.approx(average, abs=3e-3)
