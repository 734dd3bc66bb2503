import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.core.schema import output_schema, with_metadata
from zsic.evaluate import parts
from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.classes import LabelAccuracy
from zsic.evaluate.confusion import ConfusedPair
from zsic.evaluate.evaluation import Evaluation, evaluate
from zsic.evaluate.truth import load_truth

MakeRow = Callable[..., dict[str, Any]]
WritePart = Callable[..., str]

LABELS = ("cat", "dog", "cow")


def by_label(result: Evaluation) -> dict[str, tuple[int, int]]:
    return {row.label: (row.recall.n_right, row.recall.n) for row in result.per_label}


def test_everything_is_counted(make_row: MakeRow, write_part: WritePart, tmp_path: Path) -> None:
    part = write_part(
        [
            make_row("a", ["cat", "dog"]),
            make_row("b", ["dog", "cat"]),
            make_row("c", ["dog", "cow"]),
            make_row("d"),
            make_row("e", outcome="missing"),
            make_row("f", ["cow", "dog"]),
            make_row("g", ["cat", "dog"]),
            make_row("z.tar", outcome="bad_shard"),
        ]
    )
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,label\na,cat\nb,cat\nc,cat\nd,cat\ne,dog\nf,horse\nx,cat\ny,dog\nz.tar,cat\n")
    result = evaluate(part, load_truth(str(truth)), labels=LABELS)
    assert (result.n_rows, result.n_bad_shards, result.n_matched, result.n_scored) == (7, 1, 6, 4)
    assert (result.joined_by, result.failed) == ({"uri": 6}, {"corrupt": 1, "missing": 1})
    assert (result.k, result.top1, result.topk) == (2, Accuracy(1, 6), Accuracy(2, 6))
    assert (result.top1_of_ok, result.topk_of_ok) == (Accuracy(1, 4), Accuracy(2, 4))
    assert (result.n_rejected, result.top1_of_answered) == (0, Accuracy(1, 4))
    assert result.per_label == (
        LabelAccuracy("cat", Accuracy(1, 4), Accuracy(1, 1)),
        LabelAccuracy("dog", Accuracy(0, 1), Accuracy(0, 2)),
        LabelAccuracy("cow", Accuracy(0, 0), Accuracy(0, 1)),
        LabelAccuracy("horse", Accuracy(0, 1), Accuracy(0, 0)),
    )
    assert (result.n_truth, result.n_truth_unmet, result.n_truth_shared) == (9, 3, 0)
    assert result.truth_unmet == ("x", "y", "z.tar")
    assert result.unknown == {"horse": 1}
    assert result.confused == (ConfusedPair("cat", "dog", 2, 4), ConfusedPair("horse", "cow", 1, 1))


ROWS = st.lists(
    st.tuples(
        st.sampled_from([*LABELS, "horse", None]),  # the truth
        st.permutations(LABELS),
        st.integers(0, 3),  # predictions kept; none is a failed image
    ),
    min_size=1,
    max_size=40,
)


@given(rows=ROWS, k=st.integers(1, 4), batch_rows=st.integers(1, 7), n_parts=st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_agree_with_a_plain_count(
    make_row: MakeRow,
    write_part: WritePart,
    rows: list[tuple[str | None, list[str], int]],
    k: int,
    batch_rows: int,
    n_parts: int,
) -> None:
    made = [make_row(str(i), answers[:kept], truth=true) for i, (true, answers, kept) in enumerate(rows)]
    paths = [
        write_part(made[i::n_parts], f"{i}.parquet", keep_columns=["truth"], row_group_size=5) for i in range(n_parts)
    ]
    matched = [(true, answers[:kept]) for true, answers, kept in rows if true is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "BATCH_ROWS", batch_rows)
        if not matched:
            with pytest.raises(SpecError, match=f"none of the output's {len(rows)} rows has one"):
                evaluate(paths, load_truth("column:truth"), k=k)
            return
        result = evaluate(paths, load_truth("column:truth"), k=k)
    most = max(len(answers) for _, answers in matched)
    assert result.k == max(1, min(k, most))
    assert (result.n_rows, result.n_matched) == (len(rows), len(matched))
    assert result.n_scored == sum(bool(answers) for _, answers in matched)
    right = [true for true, answers in matched if answers and answers[0] == true]
    assert result.top1 == Accuracy(len(right), len(matched))
    in_topk = sum(true in answers[: result.k] for true, answers in matched)
    assert result.topk == Accuracy(in_topk, len(matched))
    assert result.topk_of_ok == Accuracy(in_topk, result.n_scored)
    truths = [true for true, _ in matched]
    answered = {answers[0] for _, answers in matched if answers}
    names = sorted({*truths, *answered})
    assert list(by_label(result).items()) == [(name, (right.count(name), truths.count(name))) for name in names]


def test_an_answer_below_a_threshold_is_wrong_first_and_among_five(make_row: MakeRow, write_part: WritePart) -> None:
    part = write_part([make_row("x/cat/1.jpg", ["cat", "dog"], label=None, score=None)])
    result = evaluate(part, load_truth("folder"))
    assert (result.top1, result.topk, result.n_scored) == (Accuracy(0, 1), Accuracy(0, 1), 1)


def test_an_answer_above_labels_is_right_first_and_among_five(make_row: MakeRow, write_part: WritePart) -> None:
    rows = [make_row("x/pet/1.jpg", ["cat", "dog"], label="pet"), make_row("x/dog/2.jpg", ["cat", "dog"], label="pet")]
    result = evaluate(write_part(rows, labels=["cat", "dog"]), load_truth("folder"))
    assert (result.top1, result.topk) == (Accuracy(1, 2), Accuracy(2, 2))
    assert result.unknown == {}, "what was answered is no unknown label"


def test_parts_are_found_by_a_pattern(make_row: MakeRow, write_part: WritePart, tmp_path: Path) -> None:
    write_part([make_row("x/cat/1.jpg", ["cat"])], "1.parquet")
    write_part([make_row("x/cat/2.jpg", ["dog"])], "2.parquet")
    write_part([], "3.parquet")
    assert evaluate(f"{tmp_path}/*.parquet", load_truth("folder")).top1 == Accuracy(1, 2)


def test_a_list_of_parts_is_taken_as_it_is_and_each_is_counted_once(make_row: MakeRow, write_part: WritePart) -> None:
    part = write_part([make_row("x/cat/1.jpg", ["cat"])], "run[1]*.parquet")
    assert evaluate([part, part], load_truth("folder")).n_rows == 1


def test_parts_and_truth_are_read_through_a_filesystem(
    make_row: MakeRow, write_part: WritePart, tmp_path: Path
) -> None:
    local = write_part([make_row("a", ["cat"]), make_row("b", ["cat"])])
    memory = fsspec.filesystem("memory")
    memory.pipe({"/out/1.parquet": Path(local).read_bytes(), "/truth.csv": b"uri,label\na,cat\nb,dog\n"})
    try:
        truth = load_truth("/truth.csv", filesystem=memory)
        assert evaluate("/out/*.parquet", truth, filesystem=memory).top1 == Accuracy(1, 2)
        with pytest.raises(SpecError, match=r"/none\.csv: "):
            load_truth("/none.csv", filesystem=memory)
    finally:
        memory.rm("/", recursive=True)


def test_the_label_set_comes_from_the_parts(make_row: MakeRow, write_part: WritePart) -> None:
    part = write_part([make_row("x/horse/1.jpg", ["cat"])], labels=["dog", "cat"])
    result = evaluate(part, load_truth("folder"))
    assert by_label(result) == {"dog": (0, 0), "cat": (0, 0), "horse": (0, 1)}
    assert result.unknown == {"horse": 1}


def test_an_unknown_label_set_is_not_guessed(make_row: MakeRow, write_part: WritePart) -> None:
    result = evaluate(write_part([make_row("x/horse/1.jpg", ["cat"])]), load_truth("folder"))
    assert result.unknown is None


def test_true_labels_are_met_in_any_spelling_and_by_synonyms(
    make_row: MakeRow, write_part: WritePart, tmp_path: Path
) -> None:
    part = write_part([make_row(str(i), ["cat", "polar bear"]) for i in range(6)], labels=["cat", "polar bear"])
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,label\n0,cat\n1,CAT\n2,Felis  Catus\n3,Polar  bear\n4,yak\n5,Yak\n")
    result = evaluate(part, load_truth(str(truth)), synonyms={"felis catus": "cat"})
    assert by_label(result) == {"cat": (3, 3), "polar bear": (0, 1), "yak": (0, 2)}
    assert (result.top1, result.topk) == (Accuracy(3, 6), Accuracy(4, 6))
    assert result.unknown == {"yak": 2}
    assert evaluate(part, load_truth(str(truth))).unknown == {"yak": 2, "Felis  Catus": 1}


def test_a_truth_in_another_spelling_meets_an_unknown_label_set_too(make_row: MakeRow, write_part: WritePart) -> None:
    rows = [make_row("x/CAT/1.jpg", ["dog"]), make_row("x/CAT/2.jpg", ["cat"])]
    for order in (rows, rows[::-1]):
        assert by_label(evaluate(write_part(order), load_truth("folder"))) == {"cat": (1, 2), "dog": (0, 0)}


def test_a_label_set_of_several_is_chosen(make_row: MakeRow, tmp_path: Path) -> None:
    schema = output_schema()
    for name in ("label", "score", "predictions"):
        schema = schema.set(schema.get_field_index(name), schema.field(name).with_name(f"{name}_breeds"))
    row = make_row("x/cat/1.jpg", ["cat", "dog"])
    row |= {f"{name}_breeds": row[name] for name in ("label", "score", "predictions")}
    metadata = {"labels": {"breeds": ["dog", "cat"], "other": ["a"]}}
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist([row], with_metadata(schema, metadata)), path)
    result = evaluate(str(path), load_truth("folder"), set_name="breeds")
    assert (result.top1, result.set_name, list(by_label(result))) == (Accuracy(1, 1), "breeds", ["dog", "cat"])
    with pytest.raises(SpecError, match="has the answers of several label sets; choose one with --set: breeds"):
        evaluate(str(path), load_truth("folder"))
    with pytest.raises(SpecError, match="has no column 'label_colours'"):
        evaluate(str(path), load_truth("folder"), set_name="colours")


def test_several_rows_that_meet_one_truth_are_told(make_row: MakeRow, write_part: WritePart, tmp_path: Path) -> None:
    part = write_part([make_row(f"{shard}.tar", ["cat"], key="0.jpg") for shard in "abc"])
    truth = tmp_path / "truth.csv"
    truth.write_text("key,label\n0,cat\n1,dog\n")
    result = evaluate(part, load_truth(str(truth)))
    assert (result.n_matched, result.n_truth, result.n_truth_shared) == (3, 2, 1)
    assert result.truth_unmet == ("1",)


def test_only_the_first_of_the_truth_without_an_image_are_named(
    make_row: MakeRow, write_part: WritePart, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,label\n" + "".join(f"{i:03},cat\n" for i in range(100)))
    result = evaluate(write_part([make_row("000", ["cat"])]), load_truth(str(truth)))
    assert result.n_truth_unmet == 99
    assert result.truth_unmet == tuple(f"{i:03}" for i in range(1, 11))


def test_it_survives_json(make_row: MakeRow, write_part: WritePart) -> None:
    rows = [make_row("x/cat/1.jpg", ["cat", "dog"]), make_row("x/horse/2.jpg")]
    result = evaluate(write_part(rows, labels=LABELS), load_truth("folder"))
    fields = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert fields.keys() == set(Evaluation.__dataclass_fields__)
    assert fields["top1"] == {
        "n_right": 1,
        "n": 2,
        "value": 0.5,
        "low": pytest.approx(0.09453, abs=1e-5),
        "high": pytest.approx(0.90547, abs=1e-5),
    }
    assert fields["per_label"][3]["label"] == "horse"
    assert len(fields["calibration"]["bins"]) == 15


class TestErrors:
    def test_no_row_with_a_truth_shows_both_sides(
        self, make_row: MakeRow, write_part: WritePart, tmp_path: Path
    ) -> None:
        truth = tmp_path / "truth.csv"
        truth.write_text("uri,label\ncat/1.jpg,cat\n")
        part = write_part([make_row("s3://b/cat/1.jpg", ["cat"])])
        with pytest.raises(SpecError, match=r"looked for 's3://b/cat/1\.jpg' first.* has 'cat/1\.jpg' first"):
            evaluate(part, load_truth(str(truth)))

    def test_no_rows_at_all(self, write_part: WritePart) -> None:
        with pytest.raises(SpecError, match="none of the output's 0 rows"):
            evaluate(write_part([]), load_truth("folder"))

    def test_no_parts(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"none/\*\.parquet: no such file"):
            evaluate(f"{tmp_path}/none/*.parquet", load_truth("folder"))

    def test_a_part_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"none\.parquet: No such file"):
            evaluate([f"{tmp_path}/none.parquet"], load_truth("folder"))

    def test_a_part_that_is_no_parquet_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
        with pytest.raises(SpecError, match=r"a\.parquet is not a Parquet file"):
            evaluate(f"{tmp_path}/a.parquet", load_truth("folder"))

    def test_a_column_that_the_output_lacks(self, make_row: MakeRow, write_part: WritePart) -> None:
        part = write_part([make_row("a", ["cat"])])
        with pytest.raises(SpecError, match=r"has no column 'klass'; it has id, uri, key, outcome"):
            evaluate(part, load_truth("column:klass"))
