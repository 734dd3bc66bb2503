from dataclasses import replace

from zsic.evaluate import (
    Accuracy,
    Calibration,
    ConfusedPair,
    Coverage,
    CoveragePoint,
    Estimate,
    Evaluation,
    LabelAccuracy,
    LabelMeans,
)
from zsic.evaluate.summary import confused_rows, label_rows, render, summary_rows


def of_label(label: str, n_right: int, n: int) -> LabelAccuracy:
    return LabelAccuracy(label, Accuracy(n_right, n), Accuracy(n_right, n))


PERFECT = Evaluation(
    n_rows=1000,
    n_bad_shards=0,
    n_matched=1000,
    n_scored=1000,
    joined_by={"folder": 1000},
    failed={},
    k=5,
    top1=Accuracy(1000, 1000),
    topk=Accuracy(1000, 1000),
    top1_of_ok=Accuracy(1000, 1000),
    topk_of_ok=Accuracy(1000, 1000),
    per_label=(of_label("cat", 1000, 1000), of_label("dog", 0, 0)),
    n_truth=None,
    n_truth_unmet=0,
    n_truth_shared=0,
    truth_unmet=(),
    unknown={},
)
FLAWED = replace(
    PERFECT,
    n_bad_shards=2,
    n_scored=880,
    joined_by={"key": 1, "key without ending": 999},
    failed={"corrupt": 100, "missing": 20},
    top1=Accuracy(600, 1000),
    top1_of_ok=Accuracy(600, 880),
    per_label=(
        of_label("cat", 590, 600),
        of_label("bad\x1b[2J", 0, 150),
        of_label("worse", 0, 250),
    ),
    n_truth=1007,
    n_truth_unmet=7,
    n_truth_shared=1,
    truth_unmet=("a", "b\x1b", "c", "d", "e", "f", "g"),
    unknown={"horse": 250},
)


def test_what_did_not_happen_is_not_said() -> None:
    assert summary_rows(PERFECT) == [
        ("rows", "1,000"),
        ("rows with a truth", "1,000 (1,000 by folder)"),
        ("top-1", "100.0 % (99.6 to 100.0)"),
        ("top-5", "100.0 % (99.6 to 100.0)"),
    ]


def test_one_prediction_a_row_has_no_top_k() -> None:
    assert not any(name.startswith("top-5") for name, _ in summary_rows(replace(PERFECT, k=1)))


def test_what_happened_is_said() -> None:
    rows = dict(summary_rows(FLAWED))
    assert rows["rows with a truth"] == "1,000 (1 by key, 999 by key without ending)"
    assert rows["failed, counted as wrong"] == "120 (100 corrupt, 20 missing)"
    assert rows["top-1"].startswith("60.0 %")
    assert rows["top-1 without failed"].startswith("68.2 %")
    assert rows["unreadable shards, not counted"] == "2"
    assert rows["truth without an image"] == r"7 of 1,007: a, b\x1b, c, d, e, ..."
    assert rows["truth that several rows share"] == "1 of 1,007"
    assert rows["true labels not in the label set"] == "1 (250 rows): horse"


def test_labels_come_worst_first_and_those_with_more_images_before() -> None:
    assert [row[:2] for row in label_rows(FLAWED)] == [
        ("worse", "250"),
        (r"bad\x1b[2J", "150"),
        ("cat", "600"),
    ]


def test_labels_without_images_have_no_row() -> None:
    assert [row[0] for row in label_rows(PERFECT)] == ["cat"]


def test_the_text_is_aligned_and_cut_to_the_worst_labels() -> None:
    text = render(FLAWED, n_labels=2)
    assert "\x1b" not in text
    head, labels = text.split("\n\n")
    lines = labels.splitlines()
    assert lines[0].startswith("label (worst 2 of 3)  images  top-1")
    assert [line.index("0.0 %") for line in lines[1:]] == [lines[0].index("top-1")] * 2
    assert len(lines) == 3
    rows = summary_rows(FLAWED)
    width = max(len(name) for name, _ in rows)
    assert [(line[:width].rstrip(), line[width:]) for line in head.splitlines()] == [
        (name, f"  {value}") for name, value in rows
    ]


def test_no_labels_are_asked_for() -> None:
    assert "\n\n" not in render(FLAWED, n_labels=0)


def test_what_was_measured_is_said() -> None:
    share = Estimate(0.5, 0.4, 0.6, 3)
    measured = replace(
        PERFECT,
        n_rejected=7,
        top1_of_answered=Accuracy(990, 993),
        means=LabelMeans(share, share, share, share),
        mean_average_precision=share,
        calibration=Calibration(share, 0.01, 0.9, 0.8, ()),
        coverage=Coverage(share, (CoveragePoint(0.99997, 0.85, Accuracy(84, 85)),)),
        confused=(ConfusedPair("a\x1b", "b", 3, 9),),
    )
    rows = dict(summary_rows(measured))
    assert rows["rejected, counted as wrong"] == "7 of 1,000"
    assert rows["top-1 of what was answered"] == "99.7 % (99.1 to 99.9)"
    assert rows["macro F1"] == rows["mean average precision"] == "50.0 % (40.0 to 60.0)"
    assert rows["calibration error"] == (
        "50.0 % (40.0 to 60.0); 1.0 % by chance; mean score 90.0 % where 80.0 % are right"
    )
    assert rows["top-1 at a score of 0.999970 or more"] == "98.8 % (93.6 to 99.8), for 85.0 % of images"
    assert confused_rows(measured) == [(r"a\x1b", "b", "3 of 9")]
