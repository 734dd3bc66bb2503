import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.evaluate import Accuracy, Comparison, PairedAccuracy, compare, load_truth, pairing, parts
from zsic.evaluate.comparison_summary import change_rows, comparison_rows, label_change_rows

MakeRow = Callable[..., dict[str, Any]]
WritePart = Callable[..., str]

LABELS = ("cat", "dog", "cow")
ANSWER = st.sampled_from([*LABELS, "(failed)", "(rejected)", "(absent)"])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a.tar", "b.tar", "c.jpg"]),
        st.sampled_from([None, "", "1.jpg", "2.jpg", "3.jpg"]),
        st.sampled_from([*LABELS, None]),
        ANSWER,
        ANSWER,
        st.integers(1, 9),
        st.integers(1, 9),
    ),
    max_size=15,
    unique_by=lambda row: row[:2],
)


def row_of(make_row: MakeRow, uri: str, key: str | None, answer: str, score: float, **columns: Any) -> dict[str, Any]:
    if answer == "(failed)":
        return make_row(uri, key=key, **columns)
    if answer == "(rejected)":
        return make_row(uri, ["cat"], key=key, label=None, score=None, **columns)
    return make_row(uri, [answer], key=key, score=score, **columns)


@given(rows=ROWS, batch_rows=st.integers(1, 6), n_files=st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_agree_with_a_plain_join(
    make_row: MakeRow, write_part: WritePart, rows: list[tuple[Any, ...]], batch_rows: int, n_files: int
) -> None:
    now, before = {}, {}
    truths = {}
    for uri, key, true, answer, answer_before, score, score_before in rows:
        truths[uri, key] = true
        if answer != "(absent)":
            now[uri, key] = (answer, score / 10)
        if answer_before != "(absent)":
            before[uri, key] = (answer_before, score_before / 10)
    one = write_part(
        # Ids say nothing about which images are the same.
        [row_of(make_row, *name, *now[name], id=i, truth=truths[name]) for i, name in enumerate(now)],
        "1.parquet",
        keep_columns=["truth"],
        labels=LABELS,
        row_group_size=4,
    )
    other = write_part(
        [row_of(make_row, *name, *before[name], id=99 - i) for i, name in enumerate(reversed(before))],
        "2.parquet",
        labels=LABELS,
    )
    matched = [name for name in now if truths[name]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "BATCH_ROWS", batch_rows)
        patch.setattr(pairing, "N_FILES", n_files)
        result = compare(one, other, load_truth("column:truth") if matched else None)
    both = [name for name in now if name in before]
    assert (result.n_output, result.n_against, result.n_both) == (len(now), len(before), len(both))
    assert (result.n_only_output, result.n_only_against) == (len(now) - len(both), len(before) - len(both))
    assert result.n_repeated == 0
    changes = Counter((before[name][0], now[name][0]) for name in both if before[name][0] != now[name][0])
    assert {(each.against, each.output): each.n for each in result.changes} == changes
    assert result.n_change_pairs == len(changes)
    assert [each.n for each in result.changes] == sorted(changes.values(), reverse=True)
    for change in result.changes:
        assert 1 <= len(change.examples) <= 3
        assert len(set(change.examples)) == len(change.examples)
        for name in change.examples:
            assert (before[name][0], now[name][0]) == (change.against, change.output)
    assert result.alike == Accuracy(len(both) - changes.total(), len(both))
    scored = [name for name in both if now[name][0] in LABELS and before[name][0] in LABELS]
    if scored:
        mean = sum(now[name][1] - before[name][1] for name in scored) / len(scored)
        assert result.mean_score_change == pytest.approx(mean, abs=1e-6)
    else:
        assert result.mean_score_change is None
    if not matched:
        assert result.accuracy is None
        return
    kinds = Counter(
        (truths[name], now[name][0] == truths[name], before[name][0] == truths[name]) for name in both if truths[name]
    )

    def paired(labels: tuple[str, ...]) -> PairedAccuracy:
        return PairedAccuracy(
            *(
                sum(kinds[label, is_right, was_right] for label in labels)
                for is_right, was_right in ((True, True), (True, False), (False, True), (False, False))
            )
        )

    assert result.accuracy == paired(LABELS)
    assert {row.label: row.accuracy for row in result.per_label} == {
        label: paired((label,)) for label in LABELS if paired((label,)).n
    }


@pytest.fixture
def example(make_row: MakeRow, write_part: WritePart, tmp_path: Path) -> Comparison:
    answers = {
        "a": ("cat", "cat"),
        "b": ("dog", "cat"),
        "c": ("dog", "cat"),
        "d": ("cow", "dog"),
        "e\x1b": ("cow", "cow"),
    }
    one = [make_row(uri, [now], score=0.75) for uri, (now, _) in answers.items()]
    other = [make_row(uri, [before], score=0.5) for uri, (_, before) in answers.items()]
    one.append(make_row("only\x1b", ["cat"]))
    other += [make_row("gone", ["cat"]), make_row("gone", ["dog"]), make_row("z.tar", outcome="bad_shard")]
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,label\na,CAT\nb,hound\nc,cat\nd,yak\n")
    return compare(
        write_part(one, "1.parquet", labels=LABELS),
        write_part(other, "2.parquet", labels=LABELS),
        load_truth(str(truth)),
        synonyms={"hound": "dog"},
    )


def test_it_reads_in_a_terminal(example: Comparison) -> None:
    rows = dict(comparison_rows(example))
    assert rows["images in both"] == "5"
    assert rows["only in this output"] == r"1: only\x1b"
    assert rows["only in the other"] == "1: gone"
    assert rows["repeated uri and key, left out"] == "1"
    assert rows["answers that changed"].startswith("3 (60.0 %, ")
    assert rows["score of the same image"] == "+0.250 on average, 0.250 either way"
    assert rows["top-1 of this output"].startswith("50.0 %")
    assert rows["gained and lost"] == "1 and 1; McNemar's p = 1"
    assert rows["true labels not in the label set"] == "1 (1 rows): yak"
    assert (
        change_rows(example) == [("cat", "dog", "2", "c"), ("dog", "cow", "1", "d")]
        or change_rows(example)[0][3] == "b"
    )
    assert {row[0]: row[1:4] for row in label_change_rows(example)} == {"cat": ("2", "0", "1"), "dog": ("1", "1", "0")}


def test_it_survives_json(example: Comparison) -> None:
    fields = json.loads(json.dumps(example.to_dict(), allow_nan=False))
    assert fields.keys() == set(Comparison.__dataclass_fields__)
    assert fields["accuracy"]["n_gained"] == 1
    assert fields["unknown"] == {"yak": 1}


def test_it_is_the_same_each_time(make_row: MakeRow, write_part: WritePart) -> None:
    one = write_part([make_row(str(i), ["cat"]) for i in range(300)], "1.parquet")
    other = write_part([make_row(str(i), [["cat", "dog"][i % 2]]) for i in range(5, 305)], "2.parquet")
    assert compare(one, other) == compare(one, other)


def test_the_outputs_of_two_nights_share_no_image(make_row: MakeRow, write_part: WritePart) -> None:
    one = write_part([make_row(f"mo{i}", ["cat"]) for i in range(30)], "1.parquet")
    other = write_part([make_row(f"tu{i}", [LABELS[i % 2]]) for i in range(30)], "2.parquet")
    result = compare(one, other)
    assert (result.n_both, result.n_only_output, result.n_only_against) == (0, 30, 30)
    assert result.labels is not None
    assert result.labels.total_variation == 0.5
    assert result.labels.shares[0].change == 0.5
    assert "images in both" in dict(comparison_rows(result))
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_output_without_rows_is_compared_as_well(make_row: MakeRow, write_part: WritePart) -> None:
    one, none = write_part([make_row("a", ["cat"])], "1.parquet"), write_part([], "2.parquet")
    for result in (compare(one, none), compare(none, one), compare(none, none)):
        assert (result.n_both, result.labels, result.scores) == (0, None, None)
        json.dumps(result.to_dict(), allow_nan=False)
        comparison_rows(result)


def test_two_label_sets_of_one_output_are_compared(make_row: MakeRow, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from zsic.core.schema import output_schema

    schema = output_schema()
    for name in ("label", "score", "predictions"):
        schema = schema.append(schema.field(name).with_name(f"{name}_old"))
        schema = schema.set(schema.get_field_index(name), schema.field(name).with_name(f"{name}_new"))
    rows = []
    for uri, new, old in (("a", "cat", "dog"), ("b", "cat", "cat")):
        row = make_row(uri, [new])
        second = make_row(uri, [old])
        rows.append(
            row
            | {f"{name}_new": row[name] for name in ("label", "score", "predictions")}
            | {f"{name}_old": second[name] for name in ("label", "score", "predictions")}
        )
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    result = compare(path, path, set_name="new", against_set_name="old")
    assert [(each.against, each.output, each.n) for each in result.changes] == [("dog", "cat", 1)]
    with pytest.raises(SpecError, match="several label sets; choose one with --set: new, old"):
        compare(path, path)


def test_either_side_is_read_through_its_filesystem(make_row: MakeRow, write_part: WritePart) -> None:
    local = write_part([make_row("a", ["cat"])])
    memory = fsspec.filesystem("memory")
    memory.pipe({"/out/1.parquet": Path(local).read_bytes()})
    try:
        assert compare(local, "/out/*.parquet", against_filesystem=memory).n_both == 1
        assert compare("/out/*.parquet", local, filesystem=memory).n_both == 1
    finally:
        memory.rm("/", recursive=True)


def test_nothing_is_left_behind(make_row: MakeRow, write_part: WritePart, tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    part = write_part([make_row("a", ["cat"])])
    compare(part, part, temp_folder=str(temp))
    with pytest.raises(SpecError, match="none of the output's 1 rows"):
        compare(part, part, load_truth("folder"), temp_folder=str(temp))
    assert os.listdir(temp) == []


def test_what_only_hashes_alike_is_no_pair(
    make_row: MakeRow, write_part: WritePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "_digest", lambda uri, key: bytes(8))
    one, other = write_part([make_row("a", ["cat"])], "1.parquet"), write_part([make_row("b", ["cat"])], "2.parquet")
    result = compare(one, other)
    assert (result.n_both, result.n_only_output, result.n_only_against) == (0, 1, 1)
