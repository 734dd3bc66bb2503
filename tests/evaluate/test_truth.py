import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic.core.errors import SpecError
from zsic.core.schema import output_schema
from zsic.core.wording import normalise
from zsic.evaluate.truth import Match, Truth, load_truth

Rows = list[dict[str, Any]]


@pytest.fixture
def batch(make_row: Callable[..., dict[str, Any]]) -> Callable[..., pa.RecordBatch]:
    """Give the function that makes a batch of an output from pairs of uri and key."""

    def make(*names: tuple[str, str | None], keep: dict[str, list[str | None]] | None = None) -> pa.RecordBatch:
        kept = keep or {}
        rows = [
            make_row(uri, ["cat"], id=i, key=key, **{name: values[i] for name, values in kept.items()})
            for i, (uri, key) in enumerate(names)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=output_schema(list(kept)))

    return make


def write(path: Path, rows: Rows) -> str:
    """Write a table of truth in the format of the path's ending; all rows have the same columns."""
    match path.suffix:
        case ".csv":
            lines = [",".join(rows[0])]
            lines += [",".join("" if v is None else f'"{v}"' for v in row.values()) for row in rows]
            path.write_text("\n".join(lines), encoding="utf-8")
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def labels_of(truth: Truth, batch: pa.RecordBatch) -> list[str | None]:
    return answers_of(truth, truth.match(batch))


def answers_of(truth: Truth, match: Match) -> list[str | None]:
    return [None if code < 0 else ";".join(truth.answers[code]) for code in match.code_B.tolist()]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
class TestTable:
    def load(self, tmp_path: Path, ending: str, rows: Rows, **options: str) -> Truth:
        return load_truth(write(tmp_path / f"truth.{ending}", rows), **options)

    @pytest.mark.parametrize("ids", [(7, 8), ("img_a", "img_b")])
    def test_is_joined_on_what_it_says_of_the_image_and_not_on_its_own_id(
        self, tmp_path: Path, ending: str, batch: Any, ids: tuple[Any, Any]
    ) -> None:
        rows = [{"id": ids[0], "uri": "a", "label": "cat"}, {"id": ids[1], "uri": "b", "label": "dog"}]
        truth = self.load(tmp_path, ending, rows)
        match = truth.match(batch(("a", None), ("b", None), ("c", None)))
        assert answers_of(truth, match) == ["cat", "dog", None]
        assert match.rules == {"uri": 2}

    def test_is_joined_on_id_where_there_is_nothing_else(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"id": 1, "label": "dog"}, {"id": 0, "label": "cat"}])
        match = truth.match(batch(("a", None), ("b", None), ("c", None)))
        assert answers_of(truth, match) == ["cat", "dog", None]
        assert match.rules == {"id": 2}
        assert match.keys_B.tolist() == [1, 0, -1]

    def test_is_joined_on_uri(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"uri": "s3://b/x.jpg", "label": "cat"}])
        match = truth.match(batch(("s3://b/x.jpg", None), ("s3://b/y/x.jpg", None)))
        assert (answers_of(truth, match), match.rules) == (["cat", None], {"uri": 1})

    def test_is_joined_on_key_with_and_without_ending(self, tmp_path: Path, ending: str, batch: Any) -> None:
        rows = [
            {"key": "n1", "label": "cat"},
            {"key": "n2.jpg", "label": "dog"},
            {"key": "a/n3", "label": "cow"},
            {"key": "n4.v2", "label": "hen"},
        ]
        truth = self.load(tmp_path, ending, rows)
        match = truth.match(
            batch(("t", "n1.jpg"), ("t", "n2.jpg"), ("t", "a/n3.JPEG"), ("t", "n4.v2.png"), ("t", "n2.png"))
        )
        assert answers_of(truth, match) == ["cat", "dog", "cow", "hen", None]
        assert match.rules == {"key": 1, "key without ending": 3}

    def test_repeated_member_is_not_taken_for_the_first(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"key": "n1", "label": "cat"}])
        assert labels_of(truth, batch(("t", "n1.jpg"), ("t", "n1.jpg#2"))) == ["cat", None]

    def test_loose_image_has_its_file_name_for_a_key(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"key": "n1", "label": "cat"}, {"key": "n2.jpg", "label": "dog"}])
        assert labels_of(truth, batch(("s3://b/c/n1.jpg", None), ("n2.jpg", None))) == ["cat", "dog"]

    def test_uri_and_key_together_tell_shards_apart(self, tmp_path: Path, ending: str, batch: Any) -> None:
        rows = [
            {"uri": "a.tar", "key": "0.jpg", "label": "cat"},
            {"uri": "b.tar", "key": "0", "label": "dog"},
            {"uri": "c.jpg", "key": None, "label": "cow"},
        ]
        truth = self.load(tmp_path, ending, rows)
        match = truth.match(batch(("a.tar", "0.jpg"), ("b.tar", "0.jpg"), ("c.jpg", None), ("c.tar", "0.jpg")))
        assert answers_of(truth, match) == ["cat", "dog", "cow", None]
        assert match.rules == {"uri and key": 2, "uri and key without ending": 1}

    def test_labels_are_composed_and_stripped(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"uri": "a", "label": " cafe\u0301 "}])
        assert labels_of(truth, batch(("a", None))) == ["caf\u00e9"]

    def test_rows_without_label_are_left_out(self, tmp_path: Path, ending: str, batch: Any) -> None:
        rows = [{"uri": "a", "label": None}, {"uri": "b", "label": " "}, {"uri": "c", "label": "cat"}]
        truth = self.load(tmp_path, ending, rows)
        assert labels_of(truth, batch(("a", None), ("b", None), ("c", None))) == [None, None, "cat"]
        assert list(truth.keys) == ["c"]

    def test_what_looks_like_another_type_stays_a_text(self, tmp_path: Path, ending: str, batch: Any) -> None:
        rows = [
            {"key": "007", "label": "no"},
            {"key": "NA", "label": "1.50"},
            {"key": "1e3", "label": "null"},
        ]
        truth = self.load(tmp_path, ending, rows)
        assert labels_of(truth, batch(("t", "007"), ("t", "NA"), ("t", "1e3"))) == ["no", "1.50", "null"]

    def test_label_column_may_have_another_name(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = self.load(tmp_path, ending, [{"uri": "a", "klass": "cat", "x": "1"}], label_column="klass")
        assert labels_of(truth, batch(("a", None))) == ["cat"]

    def test_repetition_is_harmless_and_contradiction_is_not(self, tmp_path: Path, ending: str) -> None:
        rows = [{"uri": "a", "label": "cat"}, {"uri": "a", "label": "cat"}]
        assert list(self.load(tmp_path, ending, rows).keys) == ["a"]
        with pytest.raises(SpecError, match=r"row 3: uri 'a' has the label 'dog' here and 'cat' in an earlier"):
            self.load(tmp_path, ending, [*rows, {"uri": "a", "label": "dog"}])

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"uri": "a", "class": "cat"}], "has no column 'label'"),
            ([{"uri": "a", "label": None}], "has no column 'label' with the labels, or nothing is in it"),
            ([{"uri": "a", "label": " "}], "no row has a label"),
            ([{"name": "a", "label": "cat"}], "has no column uri, key or id"),
            ([{"uri": "a", "label": "cat"}, {"uri": None, "label": "dog"}], "row 2: label 'dog' has no uri"),
        ],
    )
    def test_faults_name_the_file(self, tmp_path: Path, ending: str, rows: Rows, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            self.load(tmp_path, ending, rows)
        assert str(tmp_path / f"truth.{ending}") in str(caught.value)
        assert message in str(caught.value)

    def test_broken_file_is_named(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"truth.{ending}"
        for content in (b"", b'{"label": \xff"\n\xff,,\n'):
            path.write_bytes(content)
            with pytest.raises(SpecError, match=rf"truth\.{ending}"):
                load_truth(str(path))


def test_a_csv_may_begin_with_a_byte_order_mark(tmp_path: Path, batch: Any) -> None:
    path = tmp_path / "truth.csv"
    path.write_text('\ufefflabel,uri\n"cat, big",a\n', encoding="utf-8")
    assert labels_of(load_truth(str(path)), batch(("a", None))) == ["cat, big"]


def test_other_columns_of_a_csv_may_hold_line_ends(tmp_path: Path, batch: Any) -> None:
    path = tmp_path / "truth.csv"
    path.write_text('note,label,uri\n"one\ntwo",cat,a\n', encoding="utf-8")
    assert labels_of(load_truth(str(path)), batch(("a", None))) == ["cat"]


def test_parquet_may_hold_numbers_and_dictionaries(tmp_path: Path, batch: Any) -> None:
    path = tmp_path / "truth.parquet"
    table = pa.table({"key": pa.array([0, 1]), "label": pa.array(["cat", "dog"]).dictionary_encode()})
    pq.write_table(table, path)
    assert labels_of(load_truth(str(path)), batch(("a.parquet", "1"), ("a.parquet", "0"))) == ["dog", "cat"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
class TestSeveralLabels:
    def write(self, path: Path, lists: Sequence[Sequence[str | None]]) -> str:
        if path.suffix == ".csv":
            return write(path, [{"uri": str(i), "label": ";".join(map(str, each))} for i, each in enumerate(lists)])
        return write(path, [{"uri": str(i), "label": list(each)} for i, each in enumerate(lists)])

    def test_are_read(self, tmp_path: Path, ending: str, batch: Any) -> None:
        path = self.write(tmp_path / f"truth.{ending}", [["cat", " dog "], ["cow"], ["dog", "cat", "dog"], []])
        truth = load_truth(path)
        rows = batch(*((str(i), None) for i in range(5)))
        assert labels_of(truth, rows) == ["cat;dog", "cow", "dog;cat", None, None]
        assert truth.several
        assert truth.match(rows).labels.to_pylist() == [None, "cow", None, None, None]

    def test_of_one_each_are_no_several(self, tmp_path: Path, ending: str, batch: Any) -> None:
        truth = load_truth(self.write(tmp_path / f"truth.{ending}", [["cat"], ["dog"]]))
        assert labels_of(truth, batch(("0", None))) == ["cat"]
        assert not truth.several

    def test_contradict_one_another_in_any_order(self, tmp_path: Path, ending: str) -> None:
        lists = [["cat", "dog"], ["dog", "cat"], ["dog"]]
        rows = [{"uri": "a", "label": ";".join(each) if ending == "csv" else each} for each in lists]
        assert list(load_truth(write(tmp_path / f"two.{ending}", rows[:2])).keys) == ["a"]
        with pytest.raises(SpecError, match=r"row 3: uri 'a' has the label 'dog' here and \['cat', 'dog'\] in an"):
            load_truth(write(tmp_path / f"three.{ending}", rows))


def test_a_label_may_hold_a_semicolon_outside_csv(tmp_path: Path, batch: Any) -> None:
    path = write(tmp_path / "truth.jsonl", [{"uri": "a", "label": "nut; bolt"}])
    assert not load_truth(path).several
    assert labels_of(load_truth(path), batch(("a", None))) == ["nut; bolt"]


def test_a_jsonl_file_holds_texts_or_lists_not_both(tmp_path: Path) -> None:
    path = write(tmp_path / "truth.jsonl", [{"uri": "a", "label": "cat"}, {"uri": "b", "label": ["cat"]}])
    with pytest.raises(SpecError, match=r"truth\.jsonl: .*label.* from array to string"):
        load_truth(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.csv: No such file"):
        load_truth(str(tmp_path / "none.csv"))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.tsv"
    path.write_text("label\turi\n")
    with pytest.raises(SpecError, match=r"use \.csv, \.parquet or \.jsonl, `folder`, or `column:NAME`"):
        load_truth(str(path))


class TestFolder:
    def test_is_that_of_the_image_not_of_its_shard(self, batch: Any) -> None:
        truth = load_truth("folder")
        match = truth.match(
            batch(
                ("s3://b/train/cat/1.jpg", None),
                ("s3://b/shards/0.tar", "val/dog/1.jpg"),
                ("s3://b/shards/0.tar", "1.jpg"),
                ("s3://b/shards/0.parquet", "17"),
                ("/data/cafe\u0301/1.jpg", None),
            )
        )
        assert answers_of(truth, match) == ["cat", "dog", None, None, "caf\u00e9"]
        assert match.rules == {"folder": 3}
        assert match.keys_B.tolist() == [-1] * 5


class TestColumn:
    def test_is_taken_as_it_is(self, batch: Any) -> None:
        rows = batch(("a", None), ("b", None), ("c", None), keep={"class": [" cat", "", None]})
        truth = load_truth("column:class")
        match = truth.match(rows)
        assert answers_of(truth, match) == ["cat", None, None]
        assert match.rules == {"column class": 1}

    def test_of_lists_gives_several_labels(self, batch: Any) -> None:
        texts = [None, "", '["cat", "dog"]', "[]", '["cow"]', "[1]"]
        truth = load_truth("column:tags")
        match = truth.match(batch(*((str(i), None) for i in range(6)), keep={"tags": texts}))
        assert answers_of(truth, match) == [None, None, "cat;dog", None, "cow", "1"]
        assert truth.several

    def test_whose_first_text_is_no_list_holds_texts(self, batch: Any) -> None:
        truth = load_truth("column:tags")
        match = truth.match(batch(("a", None), ("b", None), ("c", None), keep={"tags": ["[x", '["cat"]', "a;b"]}))
        assert answers_of(truth, match) == ["[x", '["cat"]', "a;b"]
        assert not truth.several


NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=4)


@given(
    st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4),
    st.sampled_from(["", "/", "s3://"]),
)
def test_a_folder_is_the_path_s_parent(names: list[str], root: str) -> None:
    path = root + "/".join(names)
    rows = pa.RecordBatch.from_pydict({"uri": ["x.tar"], "key": [path]})
    truth = load_truth("folder")
    expected = normalise(PurePosixPath(path).parent.name)
    assert answers_of(truth, truth.match(rows)) == [expected or None]
